// The persistent kernel, which runs many SGD steps in one launch, for networks with narrow layers and small batches.
//
// Only the first layer can have many weights. These weights stay on chip from the first step to the last: each block
// keeps the weights of OUTPUTS_PER_BLOCK outputs in shared memory. A step has three phases, with a grid barrier after
// the first phase and after the second phase:
//   1. Each block computes its outputs of the first layer for the whole batch.
//   2. Each block runs the forward and backward passes of the later layers for some rows of the batch.
//   3. Each block updates the weights of its outputs. The weights of the first layer are on chip. The weights of the
//      later layers are in global memory, and all blocks read them again in the next step.
//
// Blocks exchange data through buffers in global memory. They wait for each other, so all blocks must run at the same
// time. A cooperative launch guarantees this. The design follows the fully fused networks in Müller et al., "Real-time
// Neural Radiance Caching for Path Tracing", 2021. It extends them to first layers and batches that are too large for
// one block.
//
// The order of each sum is fixed. It does not depend on the number of threads or blocks, so results are bit-identical
// between runs.
//
// kernels.py prepends the definitions of OUTPUTS_PER_BLOCK and THREADS to this file. THREADS, the number of threads in
// a block, is a multiple of 32.

// The number of rows that a warp passes through the first layer together, and the number of inputs for which a thread
// updates the weights together.
#define ROWS_PER_WARP 2
#define INPUTS_PER_THREAD 2
#define WARPS (THREADS / 32)

// A layer. `offset` is the index of its first weight in the flat weight vector. `output_offset` is the index of its
// first output in a row that contains the outputs of all layers.
struct Layer {
    int in_features, out_features, relu, offset, output_offset;

    // Returns the index of the weight from input k to an output, relative to `offset`. If k equals in_features, returns
    // the index of the bias.
    __device__ int index(int output, int k) const {
        return k < in_features ? output * in_features + k : out_features * in_features + output;
    }
    __device__ int end() const { return offset + (in_features + 1) * out_features; }
};

struct Stack {
    const Layer* layers;
    int count;
};

// The exchange buffers of a step. For each row of the batch, they contain the outputs of all layers (`width` values),
// the gradients of these outputs, and the loss. Reads must bypass the L1 cache, because it is not updated when other
// blocks write.
struct Exchange {
    REAL* outputs;
    REAL* gradients;
    double* losses;
    int width;
};

// One step: the row indices of the batch, the number of rows, the learning rate and the exchange buffers.
struct Step {
    const INDEX* indices;
    int rows;
    REAL rate;
    Exchange exchange;
};

// The part of the first layer that a block owns, which starts at first_output. W has a row for each owned output, a
// column for each input, and a final column for the bias.
struct FirstLayer {
    Layer layer;
    int relu_input, first_output;
    REAL* W;
};

// The rows of the batch that a block passes through the later layers. Their outputs and gradients are on chip.
struct BlockRows {
    int first, count, width;
    REAL* outputs;
    REAL* gradients;
};

// One value for each output that a block owns.
struct __align__(16) OutputValues {
    REAL of[OUTPUTS_PER_BLOCK];
};

// Returns the sum of the values of all lanes. Every lane receives the same sum.
template <typename Value>
__device__ Value warp_sum(Value value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// Waits until all blocks have arrived, and makes all earlier writes visible to every block. `arrivals` counts the
// arrivals of all blocks since the launch.
__device__ void grid_barrier(unsigned* arrivals, unsigned expected) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrivals, 1u);
        while (*(volatile unsigned*)arrivals < expected) __nanosleep(20);
        __threadfence();
    }
    __syncthreads();
}

// Computes those outputs of the first layer that belong to this block, for all rows of the batch. The lanes of a warp
// divide the inputs among them.
template <typename Source>
__device__ void first_forward(const Source* set, Step step, FirstLayer first) {
    const int lane = threadIdx.x % 32, features = first.layer.in_features;
    for (int row = threadIdx.x / 32 * ROWS_PER_WARP; row < step.rows; row += WARPS * ROWS_PER_WARP) {
        const Source* inputs[ROWS_PER_WARP];
        REAL sums[ROWS_PER_WARP][OUTPUTS_PER_BLOCK] = {};
#pragma unroll
        for (int r = 0; r < ROWS_PER_WARP; ++r) inputs[r] = set + step.indices[min(row + r, step.rows - 1)] * features;
#pragma unroll 8
        for (int k = lane; k < features; k += 32) {
            REAL values[ROWS_PER_WARP];
#pragma unroll
            for (int r = 0; r < ROWS_PER_WARP; ++r) values[r] = rectified((REAL)inputs[r][k], first.relu_input);
#pragma unroll
            for (int o = 0; o < OUTPUTS_PER_BLOCK; ++o) {
                REAL weight = first.W[o * (features + 1) + k];
#pragma unroll
                for (int r = 0; r < ROWS_PER_WARP; ++r) sums[r][o] += values[r] * weight;
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS_PER_WARP; ++r)
#pragma unroll
            for (int o = 0; o < OUTPUTS_PER_BLOCK; ++o) {
                REAL sum = warp_sum(sums[r][o]) + first.W[o * (features + 1) + features];
                const int output = first.first_output + o;
                if (lane == 0 && row + r < step.rows && output < first.layer.out_features)
                    step.exchange.outputs[(row + r) * step.exchange.width + output] = rectified(sum, first.layer.relu);
            }
    }
}

// Adds -rate times the gradient to the weights and biases of the block's outputs. Each thread updates the weights of
// some of the inputs.
template <typename Source>
__device__ void first_update(const Source* set, Step step, FirstLayer first, const OutputValues* gradients) {
    const int features = first.layer.in_features;
    for (int begin = threadIdx.x; begin <= features; begin += THREADS * INPUTS_PER_THREAD) {
        REAL sums[INPUTS_PER_THREAD][OUTPUTS_PER_BLOCK] = {};
#pragma unroll 4
        for (int row = 0; row < step.rows; ++row) {
            const OutputValues gradient = gradients[row];
            const Source* inputs = set + step.indices[row] * features;
#pragma unroll
            for (int i = 0; i < INPUTS_PER_THREAD; ++i) {
                int k = begin + i * THREADS;
                REAL value = k < features ? rectified((REAL)inputs[k], first.relu_input) : (REAL)1;
#pragma unroll
                for (int o = 0; o < OUTPUTS_PER_BLOCK; ++o) sums[i][o] += gradient.of[o] * value;
            }
        }
#pragma unroll
        for (int i = 0; i < INPUTS_PER_THREAD; ++i) {
            int k = begin + i * THREADS;
            for (int o = 0; o < OUTPUTS_PER_BLOCK && k <= features; ++o)
                first.W[o * (features + 1) + k] -= step.rate * sums[i][o];
        }
    }
}

// Computes the outputs of a later layer for the block's rows. b follows W in memory. Each warp computes one output of
// one row at a time, and its lanes divide the inputs among them.
__device__ void layer_forward(Layer layer, Layer below, const REAL* W, BlockRows rows) {
    const int lane = threadIdx.x % 32, features = layer.in_features;
    for (int at = threadIdx.x / 32; at < rows.count * layer.out_features; at += WARPS) {
        int row = at / layer.out_features, output = at % layer.out_features;
        const REAL* inputs = rows.outputs + row * rows.width + below.output_offset;
        REAL sum = 0;
        for (int k = lane; k < features; k += 32) sum += inputs[k] * W[output * features + k];
        sum = warp_sum(sum) + W[layer.out_features * features + output];
        if (lane == 0) rows.outputs[row * rows.width + layer.output_offset + output] = rectified(sum, layer.relu);
    }
}

// Computes the input gradients of a later layer for the block's rows. The inputs are the outputs of the layer below.
// Each thread computes one gradient at a time.
__device__ void layer_backward(Layer layer, Layer below, const REAL* W, BlockRows rows) {
    for (int at = threadIdx.x; at < rows.count * layer.in_features; at += THREADS) {
        int row = at / layer.in_features, k = at % layer.in_features;
        const REAL* above = rows.gradients + row * rows.width + layer.output_offset;
        REAL sum = 0;
        for (int output = 0; output < layer.out_features; ++output)
            sum += above[output] * W[output * layer.in_features + k];
        bool off = below.relu && !(rows.outputs[row * rows.width + below.output_offset + k] > 0);
        rows.gradients[row * rows.width + below.output_offset + k] = off ? (REAL)0 : sum;
    }
}

// Updates the block's share of a later layer: the weights of every gridDim.x-th output, starting at first_output. Reads
// the weights from shared memory, and writes them to global memory, where all blocks read them in the next step. Each
// thread updates the weights of some of the inputs.
__device__ void layer_update(Layer layer, Layer below, int first_output, const REAL* W, Step step, REAL* weights) {
    const int features = layer.in_features;
    const Exchange exchange = step.exchange;
    for (int output = first_output; output < layer.out_features; output += gridDim.x)
        for (int k = threadIdx.x; k <= features; k += THREADS) {
            REAL sum = 0;
#pragma unroll 8
            for (int row = 0; row < step.rows; ++row) {
                REAL input =
                    k < features ? __ldcg(exchange.outputs + row * exchange.width + below.output_offset + k) : (REAL)1;
                sum += __ldcg(exchange.gradients + row * exchange.width + layer.output_offset + output) * input;
            }
            const int at = layer.index(output, k);
            weights[layer.offset + at] = W[at] - step.rate * sum;
        }
}

// Runs the forward and backward passes of the later layers for the block's rows. Reads the outputs of the first layer
// from the exchange buffers, and writes all outputs, gradients and losses back to them. W contains the weights of the
// later layers.
__device__ void later_forward_and_backward(Stack stack, const REAL* W, Step step, BlockRows rows, LossTerms terms) {
    const Layer* layers = stack.layers;
    const Layer first = layers[0], last = layers[stack.count - 1];
    const Exchange exchange = step.exchange;
    const int width = rows.width;
    for (int row = 0; row < rows.count; ++row)
        for (int k = threadIdx.x; k < first.out_features; k += THREADS)
            rows.outputs[row * width + k] = __ldcg(exchange.outputs + (rows.first + row) * width + k);
    __syncthreads();
    for (int l = 1; l < stack.count; ++l) {
        layer_forward(layers[l], layers[l - 1], W + (layers[l].offset - first.end()), rows);
        __syncthreads();
    }
    for (int row = threadIdx.x; row < rows.count; row += THREADS) {
        const REAL* outputs = rows.outputs + row * width + last.output_offset;
        REAL* gradients = rows.gradients + row * width + last.output_offset;
        for (int k = 0; k < last.out_features; ++k) gradients[k] = outputs[k];
        const int batch_row = rows.first + row;
        exchange.losses[batch_row] = row_loss(gradients, last.out_features, terms, step.indices[batch_row]);
    }
    __syncthreads();
    for (int l = stack.count - 1; l > 0; --l) {
        layer_backward(layers[l], layers[l - 1], W + (layers[l].offset - first.end()), rows);
        __syncthreads();
    }
    for (int at = threadIdx.x; at < rows.count * width; at += THREADS) {
        exchange.outputs[rows.first * width + at] = rows.outputs[at];
        exchange.gradients[rows.first * width + at] = rows.gradients[at];
    }
}

// Updates the later layers. Their outputs are assigned to the blocks in round-robin order.
__device__ void later_update(Stack stack, const REAL* W, Step step, REAL* weights) {
    const Layer first = stack.layers[0];
    for (int l = 1; l < stack.count; ++l) {
        const Layer layer = stack.layers[l];
        const int start_block = (layer.output_offset - first.out_features) % gridDim.x;
        const int first_output = (blockIdx.x + gridDim.x - start_block) % gridDim.x;
        layer_update(layer, stack.layers[l - 1], first_output, W + (layer.offset - first.end()), step, weights);
    }
}

extern "C" {

// Takes one SGD step for each batch in `order`. The last batch can have fewer rows. The exchange buffers have room for
// two batches, because a block that is ahead writes to one half while others still read the other half. For each batch,
// adds the losses times `loss_share` to `loss_sum`. `gradient_factor` is applied to the gradient of each row, in
// addition to 1 / rows.
__global__ void __launch_bounds__(THREADS, 1)
persistent_steps(REAL* weights, const Layer* layers, int layer_count, const void* inputs, int input_type,
                 int relu_input, const void* targets, int target_type, int is_labels, const INDEX* order,
                 INDEX row_count, int batch, int loss, double gradient_factor, double loss_share, REAL rate,
                 REAL* exchange_outputs, REAL* exchange_gradients, double* exchange_losses, unsigned* arrivals,
                 double* loss_sum) {
    const Stack stack = {layers, layer_count};
    const Layer first = layers[0], last = layers[layer_count - 1];
    const int from = blockIdx.x * OUTPUTS_PER_BLOCK, own = min(OUTPUTS_PER_BLOCK, first.out_features - from);
    const int columns = first.in_features + 1, width = last.output_offset + last.out_features;
    const int later_size = last.end() - first.end();
    const int rows_each = (batch + gridDim.x - 1) / gridDim.x, first_row = blockIdx.x * rows_each;

    // Divide up the shared memory. persistent_kernel.py computes its size.
    extern __shared__ double shared_memory[];
    OutputValues* own_gradients = (OutputValues*)shared_memory;  // The gradients of the block's outputs, by row.
    INDEX* indices = (INDEX*)(own_gradients + batch);            // The row indices of the batch.
    REAL* own_W = (REAL*)(indices + batch);                      // The block's weights and biases of the first layer.
    REAL* later_W = own_W + OUTPUTS_PER_BLOCK * columns;         // The weights and biases of all later layers.
    REAL* outputs = later_W + later_size;                        // The outputs of all layers for the block's rows.
    REAL* gradients = outputs + rows_each * width;
    const FirstLayer own_part = {first, relu_input, from, own_W};

    // The last block may own fewer outputs. The weights of the missing outputs are 0.
    for (int at = threadIdx.x; at < OUTPUTS_PER_BLOCK * columns; at += THREADS) {
        const int output = at / columns;
        own_W[at] = output < own ? weights[first.offset + first.index(from + output, at % columns)] : (REAL)0;
    }

    double total_loss = *loss_sum;
    unsigned number = 0;
    for (INDEX begin = 0; begin < row_count; begin += batch, ++number) {
        const int rows = (int)(row_count - begin < batch ? row_count - begin : batch);
        const INDEX half = (INDEX)(number % 2) * batch;
        const Exchange exchange = {exchange_outputs + half * width, exchange_gradients + half * width,
                                   exchange_losses + half, width};
        const Step step = {indices, rows, rate, exchange};
        const BlockRows block_rows = {first_row, max(0, min(rows_each, rows - first_row)), width, outputs, gradients};
        const LossTerms terms = {{targets, target_type, is_labels}, loss, last.relu, (REAL)(gradient_factor / rows), 1};

        for (int row = threadIdx.x; row < rows; row += THREADS) indices[row] = order[begin + row];
        __syncthreads();
        with_type(inputs, input_type, [&](auto* set) { first_forward(set, step, own_part); });
        grid_barrier(arrivals, (2 * number + 1) * gridDim.x);

        for (int at = threadIdx.x; at < later_size; at += THREADS) later_W[at] = __ldcg(weights + first.end() + at);
        later_forward_and_backward(stack, later_W, step, block_rows, terms);
        grid_barrier(arrivals, (2 * number + 2) * gridDim.x);

        if (blockIdx.x == 0 && threadIdx.x < 32) {
            double sum = 0;
            for (int row = threadIdx.x; row < rows; row += 32) sum += __ldcg(exchange.losses + row);
            total_loss += warp_sum(sum) * loss_share;
        }
        for (int at = threadIdx.x; at < rows * OUTPUTS_PER_BLOCK; at += THREADS) {
            int row = at / OUTPUTS_PER_BLOCK, o = at % OUTPUTS_PER_BLOCK;
            own_gradients[row].of[o] = o < own ? __ldcg(exchange.gradients + row * width + from + o) : (REAL)0;
        }
        later_update(stack, later_W, step, weights);
        __syncthreads();
        with_type(inputs, input_type, [&](auto* set) { first_update(set, step, own_part, own_gradients); });
        __syncthreads();
    }

    for (int at = threadIdx.x; at < own * columns; at += THREADS)
        weights[first.offset + first.index(from + at / columns, at % columns)] = own_W[at];
    if (blockIdx.x == 0 && threadIdx.x == 0) *loss_sum = total_loss;
}

}

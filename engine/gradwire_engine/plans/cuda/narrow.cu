// The kernel for narrow stacks and small batches: a whole run of SGD steps in one launch.
//
// The first layer, the only one that may be large, stays on chip from the first step to the last: each block keeps OWN
// outputs' weights in its shared memory. Twice in a step all blocks meet. Before the first meeting each computes its outputs
// of the first layer for the whole batch; before the second, the rest of the way there and back for some rows of the batch;
// after it, each updates its outputs' weights, those of the first layer on chip, and of the others in `weights`, from where
// all read them in the next step. What they have for each other lies on the `board`. As they wait for each other, all
// blocks must run at once: a cooperative launch. It is the idea of the fully fused networks of Müller et al., "Real-time
// Neural Radiance Caching for Path Tracing", 2021, for a first layer and a batch that one block would take too long for.
//
// Each sum is taken in an order that depends on neither the number of threads nor that of blocks: so do no bits.
//
// OWN and THREADS (of a block, a multiple of 32) are defined before this text.

// Rows that a warp takes through the first layer together, and inputs whose weights a thread updates together.
#define ROWS 2
#define SPAN 2
#define WARPS (THREADS / 32)

// A layer, where its W and b begin in the vector of all weights, and where its outputs begin among those of all layers.
struct Layer {
    int in_features, out_features, relu, weights, place;
};

// What blocks have for each other in a step: for each row of the batch, the outputs of all layers side by side, their
// gradients likewise, and the loss. Never read through the first cache, which does not see what others write.
struct Board {
    REAL* outputs;
    REAL* gradients;
    double* losses;
};

// One of a block's outputs' values each.
struct __align__(16) Own {
    REAL of[OWN];
};

// The sum of all lanes' values, for each of them.
template <typename Value>
__device__ Value warp_sum(Value value) {
    for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
    return value;
}

// All blocks meet: what each has written before, all see after. `arrivals` counts them from 0 since the launch.
__device__ void meet(unsigned* arrivals, unsigned expected) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrivals, 1u);
        while (*(volatile unsigned*)arrivals < expected) __nanosleep(20);
        __threadfence();
    }
    __syncthreads();
}

// The OWN outputs of the first layer that begin at `from`, for all rows of the batch; `chosen` are their places in the set.
// W has a column more than there are inputs, for the bias. A warp's lanes share the inputs.
template <typename Source>
__device__ void first_forward(const Source* set, const INDEX* chosen, int rows, int relu_input, Layer layer, int from,
                              const REAL* W, REAL* outputs, int width) {
    const int lane = threadIdx.x % 32, features = layer.in_features;
    for (int row = threadIdx.x / 32 * ROWS; row < rows; row += WARPS * ROWS) {
        const Source* inputs[ROWS];
        REAL sums[ROWS][OWN] = {};
#pragma unroll
        for (int r = 0; r < ROWS; ++r) inputs[r] = set + chosen[min(row + r, rows - 1)] * features;
#pragma unroll 8
        for (int k = lane; k < features; k += 32) {
            REAL values[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) values[r] = rectified((REAL)inputs[r][k], relu_input);
#pragma unroll
            for (int o = 0; o < OWN; ++o) {
                REAL weight = W[o * (features + 1) + k];
#pragma unroll
                for (int r = 0; r < ROWS; ++r) sums[r][o] += values[r] * weight;
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int o = 0; o < OWN; ++o) {
                REAL sum = warp_sum(sums[r][o]) + W[o * (features + 1) + features];
                if (lane == 0 && row + r < rows && from + o < layer.out_features)
                    outputs[(row + r) * width + from + o] = rectified(sum, layer.relu);
            }
    }
}

// Moves the same outputs' weights, bias included, by -rate times their gradient. A thread has some inputs.
template <typename Source>
__device__ void first_update(const Source* set, const INDEX* chosen, int rows, int relu_input, int features,
                             const Own* gradients, REAL rate, REAL* W) {
    for (int begin = threadIdx.x; begin <= features; begin += THREADS * SPAN) {
        REAL sums[SPAN][OWN] = {};
#pragma unroll 4
        for (int row = 0; row < rows; ++row) {
            const Own gradient = gradients[row];
            const Source* inputs = set + chosen[row] * features;
#pragma unroll
            for (int s = 0; s < SPAN; ++s) {
                int k = begin + s * THREADS;
                REAL value = k < features ? rectified((REAL)inputs[k], relu_input) : (REAL)1;
#pragma unroll
                for (int o = 0; o < OWN; ++o) sums[s][o] += gradient.of[o] * value;
            }
        }
#pragma unroll
        for (int s = 0; s < SPAN; ++s) {
            int k = begin + s * THREADS;
            for (int o = 0; o < OWN && k <= features; ++o) W[o * (features + 1) + k] -= rate * sums[s][o];
        }
    }
}

// A layer's outputs for some rows. W is followed by b. A warp has an output of a row; its lanes share the inputs.
__device__ void forward(Layer layer, Layer below, const REAL* W, int rows, REAL* outputs, int width) {
    const int lane = threadIdx.x % 32, features = layer.in_features;
    for (int at = threadIdx.x / 32; at < rows * layer.out_features; at += WARPS) {
        int row = at / layer.out_features, output = at % layer.out_features;
        const REAL* inputs = outputs + row * width + below.place;
        REAL sum = 0;
        for (int k = lane; k < features; k += 32) sum += inputs[k] * W[output * features + k];
        sum = warp_sum(sum) + W[layer.out_features * features + output];
        if (lane == 0) outputs[row * width + layer.place + output] = rectified(sum, layer.relu);
    }
}

// The gradients of the outputs below a layer, from those of its own, for some rows. A thread has one.
__device__ void backward(Layer layer, Layer below, const REAL* W, int rows, const REAL* outputs, REAL* gradients,
                         int width) {
    for (int at = threadIdx.x; at < rows * layer.in_features; at += THREADS) {
        int row = at / layer.in_features, k = at % layer.in_features;
        const REAL* above = gradients + row * width + layer.place;
        REAL sum = 0;
        for (int output = 0; output < layer.out_features; ++output) sum += above[output] * W[output * layer.in_features + k];
        bool off = below.relu && !(outputs[row * width + below.place + k] > 0);
        gradients[row * width + below.place + k] = off ? (REAL)0 : sum;
    }
}

// Moves a block's share of a later layer's weights, an output in so many, from what they are on chip to what they are for
// all blocks in the next step. A thread has some inputs.
__device__ void update(Layer layer, Layer below, int first_output, const REAL* W, int rows, Board board, int width, REAL rate,
                       REAL* weights) {
    const int features = layer.in_features;
    for (int output = first_output; output < layer.out_features; output += gridDim.x)
        for (int k = threadIdx.x; k <= features; k += THREADS) {
            REAL sum = 0;
#pragma unroll 8
            for (int row = 0; row < rows; ++row) {
                REAL input = k < features ? __ldcg(board.outputs + row * width + below.place + k) : (REAL)1;
                sum += __ldcg(board.gradients + row * width + layer.place + output) * input;
            }
            int at = k < features ? output * features + k : layer.out_features * features + output;
            weights[layer.weights + at] = W[at] - rate * sum;
        }
}

extern "C" {

// One SGD step for every batch of `order`, the last one perhaps shorter. The board has room for two batches: who is ahead
// writes one while others still read the one before. To `loss_sum` are added, batch by batch, the losses times
// `loss_share`; `gradient_factor` is what a row's gradient is multiplied with beside 1 / rows.
__global__ void __launch_bounds__(THREADS, 1)
narrow_steps(REAL* weights, const Layer* layers, int layer_count, const void* set, int set_type, int relu_input,
             const void* target_data, int target_type, int is_labels, const INDEX* order, INDEX count, int batch, int loss,
             double gradient_factor, double loss_share, REAL rate, REAL* board_outputs, REAL* board_gradients,
             double* board_losses, unsigned* arrivals, double* loss_sum) {
    const Layer first = layers[0], last = layers[layer_count - 1];
    const Targets targets = {target_data, target_type, is_labels};
    const int width = last.place + last.out_features;  // Of a row of all layers' outputs.
    const int from = blockIdx.x * OWN, own = min(OWN, first.out_features - from);
    const int rows_each = (batch + gridDim.x - 1) / gridDim.x, first_row = blockIdx.x * rows_each;
    const int later = first.weights + (first.in_features + 1) * first.out_features;
    const int end = last.weights + (last.in_features + 1) * last.out_features;

    // Shared memory; its size is worked out in narrow.py.
    extern __shared__ double shared_memory[];
    Own* own_gradients = (Own*)shared_memory;          // Of the first layer's own outputs, for all rows.
    INDEX* chosen = (INDEX*)(own_gradients + batch);   // The rows' places in the set.
    REAL* own_W = (REAL*)(chosen + batch);             // The first layer's own weights and biases.
    REAL* later_weights = own_W + OWN * (first.in_features + 1);
    REAL* outputs = later_weights + (end - later);     // Of all layers, for the block's own rows.
    REAL* gradients = outputs + rows_each * width;

    // Outputs that are wanting in the last block have weights of 0.
    for (int at = threadIdx.x; at < OWN * (first.in_features + 1); at += THREADS) own_W[at] = 0;
    __syncthreads();
    REAL* own_home = weights + first.weights + (INDEX)from * first.in_features;
    REAL* own_bias = weights + first.weights + (INDEX)first.out_features * first.in_features + from;
    for (int o = 0; o < own; ++o)
        for (int k = threadIdx.x; k <= first.in_features; k += THREADS)
            own_W[o * (first.in_features + 1) + k] =
                k < first.in_features ? own_home[o * first.in_features + k] : own_bias[o];

    double lost = *loss_sum;
    unsigned step = 0;
    for (INDEX begin = 0; begin < count; begin += batch, ++step) {
        const int rows = (int)(count - begin < batch ? count - begin : batch);
        const int own_rows = max(0, min(rows_each, rows - first_row));
        const INDEX half = (INDEX)(step % 2) * batch;
        const Board board = {board_outputs + half * width, board_gradients + half * width, board_losses + half};

        for (int row = threadIdx.x; row < rows; row += THREADS) chosen[row] = order[begin + row];
        __syncthreads();
        with_type(set, set_type, [&](auto* data) {
            first_forward(data, chosen, rows, relu_input, first, from, own_W, board.outputs, width);
        });
        meet(arrivals, (2 * step + 1) * gridDim.x);

        for (int at = threadIdx.x; at < end - later; at += THREADS) later_weights[at] = __ldcg(weights + later + at);
        for (int row = 0; row < own_rows; ++row)
            for (int k = threadIdx.x; k < first.out_features; k += THREADS)
                outputs[row * width + k] = __ldcg(board.outputs + (first_row + row) * width + k);
        __syncthreads();
        for (int l = 1; l < layer_count; ++l) {
            forward(layers[l], layers[l - 1], later_weights + (layers[l].weights - later), own_rows, outputs, width);
            __syncthreads();
        }
        const REAL factor = (REAL)(gradient_factor / rows);
        for (int row = threadIdx.x; row < own_rows; row += THREADS) {
            REAL* gradient = gradients + row * width + last.place;
            for (int k = 0; k < last.out_features; ++k) gradient[k] = outputs[row * width + last.place + k];
            board.losses[first_row + row] = row_loss(gradient, last.out_features, targets, chosen[first_row + row], loss,
                                                     last.relu, factor, 1);
        }
        __syncthreads();
        for (int l = layer_count - 1; l > 0; --l) {
            const REAL* W = later_weights + (layers[l].weights - later);
            backward(layers[l], layers[l - 1], W, own_rows, outputs, gradients, width);
            __syncthreads();
        }
        for (int at = threadIdx.x; at < own_rows * width; at += THREADS) {
            board.outputs[first_row * width + at] = outputs[at];
            board.gradients[first_row * width + at] = gradients[at];
        }
        meet(arrivals, (2 * step + 2) * gridDim.x);

        for (int at = threadIdx.x; at < rows * OWN; at += THREADS) {
            int row = at / OWN, o = at % OWN;
            own_gradients[row].of[o] = o < own ? __ldcg(board.gradients + row * width + from + o) : (REAL)0;
        }
        if (blockIdx.x == 0 && threadIdx.x < 32) {
            double sum = 0;
            for (int row = threadIdx.x; row < rows; row += 32) sum += __ldcg(board.losses + row);
            lost += warp_sum(sum) * loss_share;
        }
        for (int l = 1; l < layer_count; ++l) {
            const Layer layer = layers[l];
            // The outputs of all later layers are dealt to the blocks in turn.
            const int dealt = (layer.place - first.out_features) % gridDim.x;
            const int mine = (blockIdx.x + gridDim.x - dealt) % gridDim.x;
            update(layer, layers[l - 1], mine, later_weights + (layer.weights - later), rows, board, width, rate, weights);
        }
        __syncthreads();
        with_type(set, set_type, [&](auto* data) {
            first_update(data, chosen, rows, relu_input, first.in_features, own_gradients, rate, own_W);
        });
        __syncthreads();
    }

    for (int o = 0; o < own; ++o)
        for (int k = threadIdx.x; k <= first.in_features; k += THREADS)
            *(k < first.in_features ? own_home + o * first.in_features + k : own_bias + o) =
                own_W[o * (first.in_features + 1) + k];
    if (blockIdx.x == 0 && threadIdx.x == 0) *loss_sum = lost;
}

}

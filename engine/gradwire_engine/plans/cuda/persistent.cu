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

    // Where in W and b the weight of an output for input k lies; the bias is that for one input more.
    __device__ int at(int output, int k) const {
        return k < in_features ? output * in_features + k : out_features * in_features + output;
    }
    __device__ int end() const { return weights + (in_features + 1) * out_features; }
};

// What blocks have for each other in a step: for each row of the batch, the outputs of all layers side by side, `width` of
// them, their gradients likewise, and the loss. Never read through the first cache, which does not see what others write.
struct Board {
    REAL* outputs;
    REAL* gradients;
    double* losses;
    int width;
};

// The rows of the batch that a block takes through the later layers, and their outputs and gradients on chip.
struct Share {
    int first_row, rows;
    REAL* outputs;
    REAL* gradients;
};

// What the outputs are held against: see row_loss.
struct Goal {
    Targets targets;
    int loss;
    double gradient_factor;
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
__device__ void update(Layer layer, Layer below, int first_output, const REAL* W, int rows, Board board, REAL rate,
                       REAL* weights) {
    const int features = layer.in_features;
    for (int output = first_output; output < layer.out_features; output += gridDim.x)
        for (int k = threadIdx.x; k <= features; k += THREADS) {
            REAL sum = 0;
#pragma unroll 8
            for (int row = 0; row < rows; ++row) {
                REAL input = k < features ? __ldcg(board.outputs + row * board.width + below.place + k) : (REAL)1;
                sum += __ldcg(board.gradients + row * board.width + layer.place + output) * input;
            }
            const int at = layer.at(output, k);
            weights[layer.weights + at] = W[at] - rate * sum;
        }
}

// The later layers, there and back, for a block's share of a batch of so many rows: from the first layer's outputs on the
// board to all outputs, gradients and losses there. W are the later layers' weights.
__device__ void there_and_back(const Layer* layers, int layer_count, const REAL* W, int rows, Share share,
                               const INDEX* chosen, Goal goal, Board board) {
    const Layer first = layers[0], last = layers[layer_count - 1];
    const int width = board.width;
    for (int row = 0; row < share.rows; ++row)
        for (int k = threadIdx.x; k < first.out_features; k += THREADS)
            share.outputs[row * width + k] = __ldcg(board.outputs + (share.first_row + row) * width + k);
    __syncthreads();
    for (int l = 1; l < layer_count; ++l) {
        const REAL* layer_W = W + (layers[l].weights - first.end());
        forward(layers[l], layers[l - 1], layer_W, share.rows, share.outputs, width);
        __syncthreads();
    }
    const REAL factor = (REAL)(goal.gradient_factor / rows);
    for (int row = threadIdx.x; row < share.rows; row += THREADS) {
        const REAL* outputs = share.outputs + row * width + last.place;
        REAL* gradients = share.gradients + row * width + last.place;
        for (int k = 0; k < last.out_features; ++k) gradients[k] = outputs[k];
        board.losses[share.first_row + row] = row_loss(gradients, last.out_features, goal.targets,
                                                       chosen[share.first_row + row], goal.loss, last.relu, factor, 1);
    }
    __syncthreads();
    for (int l = layer_count - 1; l > 0; --l) {
        const REAL* layer_W = W + (layers[l].weights - first.end());
        backward(layers[l], layers[l - 1], layer_W, share.rows, share.outputs, share.gradients, width);
        __syncthreads();
    }
    for (int at = threadIdx.x; at < share.rows * width; at += THREADS) {
        board.outputs[share.first_row * width + at] = share.outputs[at];
        board.gradients[share.first_row * width + at] = share.gradients[at];
    }
}

// The later layers' update, whose outputs are dealt to the blocks in turn.
__device__ void later_update(const Layer* layers, int layer_count, const REAL* W, int rows, Board board, REAL rate,
                             REAL* weights) {
    const Layer first = layers[0];
    for (int l = 1; l < layer_count; ++l) {
        const int dealt = (layers[l].place - first.out_features) % gridDim.x;
        const int mine = (blockIdx.x + gridDim.x - dealt) % gridDim.x;
        update(layers[l], layers[l - 1], mine, W + (layers[l].weights - first.end()), rows, board, rate, weights);
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
    const Goal goal = {{target_data, target_type, is_labels}, loss, gradient_factor};
    const int from = blockIdx.x * OWN, own = min(OWN, first.out_features - from), inputs = first.in_features + 1;
    const int width = last.place + last.out_features, later_size = last.end() - first.end();
    const int rows_each = (batch + gridDim.x - 1) / gridDim.x, first_row = blockIdx.x * rows_each;

    // Shared memory; its size is worked out in narrow.py.
    extern __shared__ double shared_memory[];
    Own* own_gradients = (Own*)shared_memory;         // Of the first layer's own outputs, for all rows.
    INDEX* chosen = (INDEX*)(own_gradients + batch);  // The rows' places in the set.
    REAL* own_W = (REAL*)(chosen + batch);            // The first layer's own weights and biases.
    REAL* later_W = own_W + OWN * inputs;             // All later layers' W and b.
    REAL* outputs = later_W + later_size;             // Of all layers, for the block's share of the rows.
    REAL* gradients = outputs + rows_each * width;

    // Outputs that are wanting in the last block have weights of 0.
    for (int at = threadIdx.x; at < OWN * inputs; at += THREADS)
        own_W[at] = at / inputs < own ? weights[first.weights + first.at(from + at / inputs, at % inputs)] : (REAL)0;

    double lost = *loss_sum;
    unsigned step = 0;
    for (INDEX begin = 0; begin < count; begin += batch, ++step) {
        const int rows = (int)(count - begin < batch ? count - begin : batch);
        const Share share = {first_row, max(0, min(rows_each, rows - first_row)), outputs, gradients};
        const INDEX half = (INDEX)(step % 2) * batch;
        const Board board = {board_outputs + half * width, board_gradients + half * width, board_losses + half, width};

        for (int row = threadIdx.x; row < rows; row += THREADS) chosen[row] = order[begin + row];
        __syncthreads();
        with_type(set, set_type, [&](auto* data) {
            first_forward(data, chosen, rows, relu_input, first, from, own_W, board.outputs, width);
        });
        meet(arrivals, (2 * step + 1) * gridDim.x);

        for (int at = threadIdx.x; at < later_size; at += THREADS) later_W[at] = __ldcg(weights + first.end() + at);
        there_and_back(layers, layer_count, later_W, rows, share, chosen, goal, board);
        meet(arrivals, (2 * step + 2) * gridDim.x);

        if (blockIdx.x == 0 && threadIdx.x < 32) {
            double sum = 0;
            for (int row = threadIdx.x; row < rows; row += 32) sum += __ldcg(board.losses + row);
            lost += warp_sum(sum) * loss_share;
        }
        for (int at = threadIdx.x; at < rows * OWN; at += THREADS) {
            int row = at / OWN, o = at % OWN;
            own_gradients[row].of[o] = o < own ? __ldcg(board.gradients + row * width + from + o) : (REAL)0;
        }
        later_update(layers, layer_count, later_W, rows, board, rate, weights);
        __syncthreads();
        with_type(set, set_type, [&](auto* data) {
            first_update(data, chosen, rows, relu_input, first.in_features, own_gradients, rate, own_W);
        });
        __syncthreads();
    }

    for (int at = threadIdx.x; at < own * inputs; at += THREADS)
        weights[first.weights + first.at(from + at / inputs, at % inputs)] = own_W[at];
    if (blockIdx.x == 0 && threadIdx.x == 0) *loss_sum = lost;
}

}

// The kernel for narrow stacks and small batches: a whole run of SGD steps in one launch, with the weights on chip from
// the first step to the last.
//
// Of the first layer, the only one that may be large, each block keeps OWN outputs' weights in its shared memory. All other
// layers every block keeps whole and computes for itself, so that in a step the blocks meet once only: when each has
// written its outputs of the first layer for the others to read. They wait for each other, so all must run at once: a
// cooperative launch. It is the idea of the fully fused networks of Müller et al., "Real-time Neural Radiance Caching
// for Path Tracing", 2021, for a first layer that does not fit one block.
//
// A bias is the weight of one more input, which is always 1. Each sum is taken in an order that depends on neither the
// number of threads nor that of blocks: so do no bits.
//
// OWN and THREADS (of a block, a multiple of 32) are defined before this text.

// Rows of a product that a thread works on together, so that an element that it has read serves all of them.
#define TILE 4
// Rows that a warp takes through the first layer together.
#define PAIR 2
#define WARPS (THREADS / 32)

// A layer, and the places of its matrices in shared memory, counted in REALs; worked out in narrow.py. `vector` is where
// its weights lie in the vector of all. W has a column more than there are inputs, for the bias, and `outputs` one more
// than there are outputs, of ones. `gradient` has a row for each of the batch, `gradient_step` after the one before.
struct Layer {
    int in_features, out_features, relu, vector, W, outputs, gradient, gradient_step;

    __device__ REAL* home(REAL* weights, int row, int column) const {
        INDEX at = column < in_features ? (INDEX)row * in_features + column : (INDEX)out_features * in_features + row;
        return weights + vector + at;
    }
};

// The sum of all lanes' values, for each of them.
template <typename Value>
__device__ Value warp_sum(Value value) {
    for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
    return value;
}

// sum over k of a[row * a_row + k * a_k] * b[k * b_k + column * b_column], for every row and column, goes to
// `finish(row, column, sum)`. A warp has TILE rows and 32 columns at a time.
template <typename Finish>
__device__ void product(int rows, int columns, int inner, const REAL* a, int a_row, int a_k, const REAL* b, int b_k,
                        int b_column, Finish finish) {
    int across = (columns + 31) / 32, tiles = (rows + TILE - 1) / TILE * across;
    for (int tile = threadIdx.x / 32; tile < tiles; tile += WARPS) {
        int first = tile / across * TILE, column = tile % across * 32 + threadIdx.x % 32;
        if (column >= columns) continue;
        const REAL* lines[TILE];
        REAL sums[TILE];
#pragma unroll
        for (int t = 0; t < TILE; ++t) {
            lines[t] = a + min(first + t, rows - 1) * a_row;
            sums[t] = 0;
        }
        for (int k = 0; k < inner; ++k) {
            REAL factor = b[k * b_k + column * b_column];
#pragma unroll
            for (int t = 0; t < TILE; ++t) sums[t] += lines[t][k * a_k] * factor;
        }
#pragma unroll
        for (int t = 0; t < TILE; ++t)
            if (first + t < rows) finish(first + t, column, sums[t]);
    }
}

// The OWN outputs of the first layer that begin at `from`, for the rows of the set that `chosen` names, to `out`. A warp's
// lanes share the inputs.
template <typename Source>
__device__ void first_forward(const Source* set, const INDEX* chosen, int rows, int relu_input, Layer layer, int from,
                              const REAL* W, REAL* out) {
    int lane = threadIdx.x % 32, features = layer.in_features;
    for (int row = threadIdx.x / 32 * PAIR; row < rows; row += WARPS * PAIR) {
        const Source* inputs[PAIR];
        REAL sums[PAIR][OWN] = {};
#pragma unroll
        for (int p = 0; p < PAIR; ++p) inputs[p] = set + chosen[min(row + p, rows - 1)] * features;
#pragma unroll 4
        for (int k = lane; k < features; k += 32) {
            REAL values[PAIR];
#pragma unroll
            for (int p = 0; p < PAIR; ++p) values[p] = rectified((REAL)inputs[p][k], relu_input);
#pragma unroll
            for (int o = 0; o < OWN; ++o) {
                REAL weight = W[o * (features + 1) + k];
#pragma unroll
                for (int p = 0; p < PAIR; ++p) sums[p][o] += values[p] * weight;
            }
        }
#pragma unroll
        for (int p = 0; p < PAIR; ++p)
#pragma unroll
            for (int o = 0; o < OWN; ++o) {
                REAL sum = warp_sum(sums[p][o]);
                if (lane == 0 && row + p < rows && from + o < layer.out_features)
                    out[(row + p) * layer.out_features + from + o] =
                        rectified(sum + W[o * (features + 1) + features], layer.relu);
            }
    }
}

// Moves the same outputs' weights by -rate times their gradient. A thread has some inputs.
template <typename Source>
__device__ void first_update(const Source* set, const INDEX* chosen, int rows, int relu_input, int features,
                             const REAL* gradient, REAL rate, REAL* W) {
    for (int k = threadIdx.x; k <= features; k += THREADS) {
        REAL sums[OWN] = {};
#pragma unroll 4
        for (int row = 0; row < rows; ++row) {
            REAL value = k < features ? rectified((REAL)set[chosen[row] * features + k], relu_input) : (REAL)1;
#pragma unroll
            for (int o = 0; o < OWN; ++o) sums[o] += gradient[row * OWN + o] * value;
        }
#pragma unroll
        for (int o = 0; o < OWN; ++o) W[o * (features + 1) + k] -= rate * sums[o];
    }
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

extern "C" {

// One SGD step for every batch of `order`, the last one perhaps shorter. `exchange` has room for the first layer's outputs
// of two batches: who is ahead writes one while others still read the one before. To `loss_sum` are added, batch by batch,
// the losses times `loss_share`; `gradient_factor` is what a row's gradient is multiplied with beside 1 / rows.
__global__ void __launch_bounds__(THREADS)
narrow_steps(REAL* weights, const Layer* layers, int layer_count, const void* set, int set_type, int relu_input,
             const void* target_data, int target_type, int is_labels, const INDEX* order, INDEX count, int batch, int loss,
             double gradient_factor, double loss_share, REAL rate, REAL* exchange, unsigned* arrivals, double* loss_sum) {
    extern __shared__ double shared_memory[];
    INDEX* chosen = (INDEX*)shared_memory;
    double* row_losses = (double*)(chosen + batch);
    REAL* chip = (REAL*)(row_losses + batch);
    const Layer first = layers[0], last = layers[layer_count - 1];
    const Targets targets = {target_data, target_type, is_labels};
    const int from = blockIdx.x * OWN, own = min(OWN, first.out_features - from);

    // Outputs that are wanting in the last block have weights and gradients of 0.
    for (int at = threadIdx.x; at < OWN * (first.in_features + 1); at += THREADS) {
        int row = at / (first.in_features + 1), column = at % (first.in_features + 1);
        chip[first.W + at] = row < own ? *first.home(weights, from + row, column) : (REAL)0;
    }
    for (int at = threadIdx.x; at < batch * OWN; at += THREADS) chip[first.gradient + at] = 0;
    for (int l = 0; l < layer_count; ++l) {
        const Layer layer = layers[l];
        for (int row = threadIdx.x; row < batch; row += THREADS)
            chip[layer.outputs + row * (layer.out_features + 1) + layer.out_features] = 1;
        for (int at = threadIdx.x; l > 0 && at < layer.out_features * (layer.in_features + 1); at += THREADS)
            chip[layer.W + at] = *layer.home(weights, at / (layer.in_features + 1), at % (layer.in_features + 1));
    }

    double lost = *loss_sum;
    unsigned step = 0;
    for (INDEX begin = 0; begin < count; begin += batch, ++step) {
        const int rows = (int)(count - begin < batch ? count - begin : batch);
        for (int row = threadIdx.x; row < rows; row += THREADS) chosen[row] = order[begin + row];
        __syncthreads();

        REAL* together = exchange + (INDEX)(step % 2) * batch * first.out_features;
        with_type(set, set_type, [&](auto* data) {
            first_forward(data, chosen, rows, relu_input, first, from, chip + first.W, together);
        });
        meet(arrivals, (step + 1) * gridDim.x);
        for (int at = threadIdx.x; at < rows * first.out_features; at += THREADS) {
            int row = at / first.out_features, column = at % first.out_features;
            chip[first.outputs + row * (first.out_features + 1) + column] = __ldcg(together + at);
        }
        __syncthreads();

        for (int l = 1; l < layer_count; ++l) {
            const Layer layer = layers[l], below = layers[l - 1];
            const int inner = layer.in_features + 1, step_out = layer.out_features + 1;
            product(rows, layer.out_features, inner, chip + below.outputs, inner, 1, chip + layer.W, 1, inner,
                    [&](int row, int column, REAL sum) {
                        chip[layer.outputs + row * step_out + column] = rectified(sum, layer.relu);
                    });
            __syncthreads();
        }

        const REAL factor = (REAL)(gradient_factor / rows);
        for (int row = threadIdx.x; row < rows; row += THREADS) {
            REAL* outputs = chip + last.outputs + row * (last.out_features + 1);
            row_losses[row] = row_loss(outputs, last.out_features, targets, chosen[row], loss, last.relu, factor, 1);
            if (layer_count == 1)
                for (int o = 0; o < own; ++o) chip[first.gradient + row * OWN + o] = outputs[from + o];
        }
        __syncthreads();
        if (blockIdx.x == 0 && threadIdx.x < 32) {
            double sum = 0;
            for (int row = threadIdx.x; row < rows; row += 32) sum += row_losses[row];
            lost += warp_sum(sum) * loss_share;
        }

        for (int l = layer_count - 1; l > 0; --l) {
            const Layer layer = layers[l], below = layers[l - 1];
            const int stride = layer.in_features + 1;
            // Of the first layer's outputs, only this block's own.
            const int begin_own = l == 1 ? from : 0, columns = l == 1 ? own : layer.in_features;
            product(rows, columns, layer.out_features, chip + layer.gradient, layer.gradient_step, 1,
                    chip + layer.W + begin_own, stride, 1, [&](int row, int column, REAL sum) {
                        REAL output = chip[below.outputs + row * stride + begin_own + column];
                        chip[below.gradient + row * below.gradient_step + column] =
                            below.relu && !(output > 0) ? (REAL)0 : sum;
                    });
            __syncthreads();
            product(layer.out_features, stride, rows, chip + layer.gradient, 1, layer.gradient_step,
                    chip + below.outputs, stride, 1,
                    [&](int row, int column, REAL sum) { chip[layer.W + row * stride + column] -= rate * sum; });
        }
        with_type(set, set_type, [&](auto* data) {
            first_update(data, chosen, rows, relu_input, first.in_features, chip + first.gradient, rate, chip + first.W);
        });
        __syncthreads();
    }

    for (int at = threadIdx.x; at < own * (first.in_features + 1); at += THREADS)
        *first.home(weights, from + at / (first.in_features + 1), at % (first.in_features + 1)) = chip[first.W + at];
    if (blockIdx.x > 0) return;
    for (int l = 1; l < layer_count; ++l) {
        const Layer layer = layers[l];
        for (int at = threadIdx.x; at < layer.out_features * (layer.in_features + 1); at += THREADS)
            *layer.home(weights, at / (layer.in_features + 1), at % (layer.in_features + 1)) = chip[layer.W + at];
    }
    if (threadIdx.x == 0) *loss_sum = lost;
}

}

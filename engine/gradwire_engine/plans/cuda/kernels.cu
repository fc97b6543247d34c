// The kernels for a training step that alternates between these kernels and cuBLAS matrix products.
//
// No sum depends on the order in which threads run, so results are bit-identical between runs. `position` is the index
// in `order` of the first row of the batch. It is in device memory, so that a captured step can be replayed. kernels.py
// lists the same parameters in the same order. kernels.py also prepends the definitions of BLOCK and PARTS.

extern "C" {

// Sets out[row, column] = source[order[position + row], column]. If relu is set, negative values become 0.
__global__ void gather(const void* source, int source_type, const INDEX* order, const INDEX* position, int rows,
                       int width, int relu, REAL* out) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (INDEX)rows * width) return;
    INDEX row = order[*position + at / width];
    out[at] = rectified(element(source, source_type, row * width + at % width), relu);
}

// Adds the biases to each row of out. If relu is set, negative results become 0.
__global__ void add_bias(REAL* out, const REAL* bias, int rows, int width, int relu) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (INDEX)rows * width) return;
    out[at] = rectified(out[at] + bias[at % width], relu);
}

// Sets the gradient to 0 where the output of the ReLU is 0.
__global__ void mask(REAL* gradient, const REAL* output, INDEX count) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count && !(output[at] > 0)) gradient[at] = 0;
}

// Computes the loss of each row, with one thread for each row; see row_loss.
__global__ void losses(REAL* outputs, const void* targets, int target_type, int is_labels, const INDEX* order,
                       const INDEX* position, int rows, int width, int loss, int relu, REAL factor, int train,
                       double* row_losses) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    const LossTerms terms = {{targets, target_type, is_labels}, loss, relu, factor, train};
    row_losses[row] = row_loss(outputs + (INDEX)row * width, width, terms, order[*position + row]);
}

// Adds the losses of a batch to loss_sum, and advances position. Runs in one block of BLOCK threads, where BLOCK is a
// power of two. Each thread sums the losses of some of the rows. Then the sums are added in pairs.
__global__ void end_step(const double* row_losses, int rows, double share, double* loss_sum, INDEX* position) {
    __shared__ double sums[BLOCK];
    double sum = 0;
    for (int row = threadIdx.x; row < rows; row += BLOCK) sum += row_losses[row];
    sums[threadIdx.x] = sum;
    for (int distance = BLOCK / 2; distance > 0; distance /= 2) {
        __syncthreads();
        if (threadIdx.x < distance) sums[threadIdx.x] += sums[threadIdx.x + distance];
    }
    if (threadIdx.x > 0) return;
    *loss_sum += sums[0] * share;
    *position += rows;
}

// Counts the predicted and actual classes, with one thread for each row. The counts are integers, so the order of the
// atomic additions does not affect the result.
__global__ void count_classes(const REAL* outputs, const void* targets, int target_type, int is_labels,
                              const INDEX* order, const INDEX* position, int rows, int width,
                              unsigned long long* sums) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    const Target target = Targets{targets, target_type, is_labels}.of(order[*position + row], width);
    int predicted = 0, actual = 0;
    REAL best = 0;
    for (int column = 0; column < width; ++column) {
        REAL output = outputs[(INDEX)row * width + column];
        if (output > outputs[(INDEX)row * width + predicted]) predicted = column;
        REAL expected = target.at(column);
        if (column == 0 || expected > best) { best = expected; actual = column; }
    }
    if (predicted == actual) atomicAdd(sums + predicted, 1ULL);
    atomicAdd(sums + width + predicted, 1ULL);
    atomicAdd(sums + 2 * width + actual, 1ULL);
}

// Adds |error| and error^2 to `sums`, which has shape (2, PARTS, width). There is one thread for each combination of a
// column and a part of the rows.
__global__ void sum_errors(const REAL* outputs, const void* targets, int target_type, int is_labels,
                           const INDEX* order, const INDEX* position, int rows, int width, double* sums) {
    int at = blockIdx.x * blockDim.x + threadIdx.x, part = at / width, column = at % width;
    if (part >= PARTS) return;
    const Targets all = {targets, target_type, is_labels};
    double absolute = 0, squared = 0;
    for (int row = part; row < rows; row += PARTS) {
        REAL expected = all.of(order[*position + row], width).at(column);
        double error = (double)(outputs[(INDEX)row * width + column] - expected);
        absolute += error < 0 ? -error : error;
        squared += error * error;
    }
    sums[at] += absolute;
    sums[PARTS * width + at] += squared;
}

}

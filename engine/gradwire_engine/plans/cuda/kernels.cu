// The kernels of a step that runs as one kernel after the other, between matrix products of cuBLAS.
//
// No sum depends on the order in which threads run: so do no bits.
// `position` is where in `order` the batch begins; it lies on the device, so that a captured step can be replayed.
// BLOCK and PARTS are defined before this text.

extern "C" {

// out[row, column] = source[order[position + row], column], and 0 for what is negative where a ReLU comes first.
__global__ void gather(const void* source, int type, const INDEX* order, const INDEX* position, int rows, int width,
                       int relu, REAL* out) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (INDEX)rows * width) return;
    INDEX row = order[*position + at / width];
    out[at] = rectified(element(source, type, row * width + at % width), relu);
}

// out = out + bias, row by row, then ReLU if one follows.
__global__ void add_bias(REAL* out, const REAL* bias, int rows, int width, int relu) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (INDEX)rows * width) return;
    out[at] = rectified(out[at] + bias[at % width], relu);
}

// gradient = 0 where the ReLU's output was 0.
__global__ void mask(REAL* gradient, const REAL* output, INDEX count) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count && !(output[at] > 0)) gradient[at] = 0;
}

// A thread for each row: see row_loss.
__global__ void losses(REAL* outputs, const void* targets, int type, int is_labels, const INDEX* order,
                       const INDEX* position, int rows, int width, int loss, int relu, REAL factor, int train,
                       double* row_losses) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    row_losses[row] = row_loss(outputs + (INDEX)row * width, width, {targets, type, is_labels}, order[*position + row],
                               loss, relu, factor, train);
}

// One block of BLOCK threads, a power of two: the step is over. Each sums some rows' losses; then the sums are added up in
// pairs.
__global__ void end_step(const double* row_losses, int rows, double share, double* loss_sum, INDEX* position) {
    __shared__ double sums[BLOCK];
    double sum = 0;
    for (int row = threadIdx.x; row < rows; row += BLOCK) sum += row_losses[row];
    sums[threadIdx.x] = sum;
    for (int apart = BLOCK / 2; apart > 0; apart /= 2) {
        __syncthreads();
        if (threadIdx.x < apart) sums[threadIdx.x] += sums[threadIdx.x + apart];
    }
    if (threadIdx.x > 0) return;
    *loss_sum += sums[0] * share;
    *position += rows;
}

// A thread for each row: the class with the largest output, and the true one, are counted. Whole numbers: any order.
__global__ void count_classes(const REAL* outputs, const void* targets, int type, int is_labels, const INDEX* order,
                              const INDEX* position, int rows, int width, unsigned long long* counts) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    const Target wanted = Targets{targets, type, is_labels}.of(order[*position + row], width);
    int predicted = 0, actual = 0;
    REAL best = 0;
    for (int column = 0; column < width; ++column) {
        REAL output = outputs[(INDEX)row * width + column];
        if (output > outputs[(INDEX)row * width + predicted]) predicted = column;
        REAL target = wanted.at(column);
        if (column == 0 || target > best) { best = target; actual = column; }
    }
    if (predicted == actual) atomicAdd(counts + predicted, 1ULL);
    atomicAdd(counts + width + predicted, 1ULL);
    atomicAdd(counts + 2 * width + actual, 1ULL);
}

// A thread for each part of the rows and each column: its sums of |error| and error^2 go up by those of its rows. `sums` is
// (2, PARTS, width).
__global__ void sum_errors(const REAL* outputs, const void* targets, int type, int is_labels, const INDEX* order,
                           const INDEX* position, int rows, int width, double* sums) {
    int at = blockIdx.x * blockDim.x + threadIdx.x, part = at / width, column = at % width;
    if (part >= PARTS) return;
    Targets wanted = {targets, type, is_labels};
    double absolute = 0, squared = 0;
    for (int row = part; row < rows; row += PARTS) {
        REAL target = wanted.of(order[*position + row], width).at(column);
        double error = (double)(outputs[(INDEX)row * width + column] - target);
        absolute += error < 0 ? -error : error;
        squared += error * error;
    }
    sums[at] += absolute;
    sums[PARTS * width + at] += squared;
}

}

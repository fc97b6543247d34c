// The kernels of the CUDA plan. REAL is float or double, and is defined before this text; so is INDEX, long long.
//
// All matrices are row-major. No kernel needs another thread's result, so that the order of the threads changes no bit.
// `position` is where in `order` the batch begins; it lives on the device, so that a captured step can be replayed.

extern "C" {

// Codes of the types that data comes in; they are numbered in kernels.py.
__device__ REAL element(const void* source, int type, INDEX at) {
    switch (type) {
        case 0: return (REAL)((const float*)source)[at];
        case 1: return (REAL)((const double*)source)[at];
        case 2: return (REAL)((const signed char*)source)[at];
        case 3: return (REAL)((const unsigned char*)source)[at];
        case 4: return (REAL)((const short*)source)[at];
        case 5: return (REAL)((const unsigned short*)source)[at];
        case 6: return (REAL)((const int*)source)[at];
        default: return (REAL)((const INDEX*)source)[at];
    }
}

// out[row, column] = source[order[position + row], column], and 0 for what is negative where a ReLU comes first.
__global__ void gather(const void* source, int type, const INDEX* order, const INDEX* position, int rows, int width,
                       int relu, REAL* out) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (INDEX)rows * width) return;
    INDEX row = order[*position + at / width];
    REAL value = element(source, type, row * width + at % width);
    out[at] = relu && value < 0 ? (REAL)0 : value;
}

// out = out + bias, row by row, then ReLU if one follows.
__global__ void add_bias(REAL* out, const REAL* bias, int rows, int width, int relu) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (INDEX)rows * width) return;
    REAL value = out[at] + bias[at % width];
    out[at] = relu && value < 0 ? (REAL)0 : value;
}

// gradient = 0 where the ReLU's output was 0.
__global__ void mask(REAL* gradient, const REAL* output, INDEX count) {
    INDEX at = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count && !(output[at] > 0)) gradient[at] = 0;
}

// A row's target at a column: from class indices, or from a matrix.
__device__ REAL target(const void* targets, int type, int is_labels, INDEX row, int column, int width) {
    if (is_labels) return (INDEX)element(targets, type, row) == column ? (REAL)1 : (REAL)0;
    return element(targets, type, row * width + column);
}

// A thread for each row: its loss, and where `train` says so, the gradient in place of the outputs, through the ReLU that
// they may have come through. `loss` is 0 for softmax and cross-entropy, 1 for cross-entropy of probabilities, 2 for squared
// errors; `factor` is 1 / rows, or what MSE has there.
__global__ void losses(REAL* outputs, const void* targets, int type, int is_labels, const INDEX* order,
                       const INDEX* position, int rows, int width, int loss, int relu, REAL factor, int train,
                       double* row_losses) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    INDEX source = order[*position + row];
    REAL* output = outputs + (INDEX)row * width;
    double sum = 0;
    REAL highest = 0, total = 0;
    if (loss == 0) {
        highest = output[0];
        for (int column = 1; column < width; ++column) highest = output[column] > highest ? output[column] : highest;
        for (int column = 0; column < width; ++column) total += exp(output[column] - highest);
        total = log(total);
    }
    for (int column = 0; column < width; ++column) {
        REAL wanted = target(targets, type, is_labels, source, column, width);
        REAL gradient;
        if (loss == 0) {
            REAL log_p = output[column] - highest - total;
            sum -= (double)(wanted * log_p);
            gradient = (exp(log_p) - wanted) * factor;
        } else if (loss == 1) {
            REAL p = output[column] < (REAL)1e-12 ? (REAL)1e-12 : output[column] > 1 ? (REAL)1 : output[column];
            sum -= (double)(wanted * log(p));
            gradient = -wanted / p * factor;
        } else {
            REAL error = output[column] - wanted;
            sum += (double)(error * error);
            gradient = error * factor;
        }
        if (train) output[column] = relu && !(output[column] > 0) ? (REAL)0 : gradient;
    }
    row_losses[row] = sum;
}

// 64 threads: each sums the losses of its rows.
__global__ void sum_losses(const double* row_losses, int rows, double* partial) {
    int first = threadIdx.x;
    double sum = 0;
    for (int row = first; row < rows; row += 64) sum += row_losses[row];
    partial[first] = sum;
}

// One thread: the step is over.
__global__ void end_step(const double* partial, double share, double* loss_sum, INDEX* position, int rows) {
    double sum = 0;
    for (int part = 0; part < 64; ++part) sum += partial[part];
    *loss_sum += sum * share;
    *position += rows;
}

// A thread for each row: the class with the largest output, and the true one, are counted. Whole numbers: any order.
__global__ void count_classes(const REAL* outputs, const void* targets, int type, int is_labels, const INDEX* order,
                              const INDEX* position, int rows, int width, unsigned long long* counts) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    INDEX source = order[*position + row];
    int predicted = 0, actual = 0;
    REAL best = 0;
    for (int column = 0; column < width; ++column) {
        REAL output = outputs[(INDEX)row * width + column];
        if (output > outputs[(INDEX)row * width + predicted]) predicted = column;
        REAL wanted = target(targets, type, is_labels, source, column, width);
        if (column == 0 || wanted > best) { best = wanted; actual = column; }
    }
    if (predicted == actual) atomicAdd(counts + predicted, 1ULL);
    atomicAdd(counts + width + predicted, 1ULL);
    atomicAdd(counts + 2 * width + actual, 1ULL);
}

// A thread for each column: the sums of |error| and error^2 go up by those of the block.
__global__ void sum_errors(const REAL* outputs, const void* targets, int type, const INDEX* order, const INDEX* position,
                           int rows, int width, double* sums) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    double absolute = 0, squared = 0;
    for (int row = 0; row < rows; ++row) {
        REAL wanted = target(targets, type, 0, order[*position + row], column, width);
        double error = (double)(outputs[(INDEX)row * width + column] - wanted);
        absolute += error < 0 ? -error : error;
        squared += error * error;
    }
    sums[column] += absolute;
    sums[width + column] += squared;
}

}

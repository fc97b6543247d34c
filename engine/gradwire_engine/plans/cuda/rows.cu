// What the kernels share: reading data of any type, and what a row of outputs loses. It comes before their own text.
//
// REAL, float or double, and INDEX, long long, are defined before this text. All matrices are row-major.

// Calls `work` with the pointer to data in the type that it has. The codes of types are numbered in kernels.py.
template <typename Work>
__device__ void with_type(const void* data, int type, Work work) {
    switch (type) {
        case 0: work((const float*)data); break;
        case 1: work((const double*)data); break;
        case 2: work((const signed char*)data); break;
        case 3: work((const unsigned char*)data); break;
        case 4: work((const short*)data); break;
        case 5: work((const unsigned short*)data); break;
        case 6: work((const int*)data); break;
        default: work((const INDEX*)data);
    }
}

__device__ REAL element(const void* source, int type, INDEX at) {
    REAL value;
    with_type(source, type, [&](auto* data) { value = (REAL)data[at]; });
    return value;
}

__device__ REAL rectified(REAL value, int relu) { return relu && value < 0 ? (REAL)0 : value; }

// What a row's outputs should have been: 1 at its class and 0 elsewhere, or its row of a matrix.
struct Target {
    const void* data;
    int type, is_label;
    INDEX label_or_start;

    __device__ REAL at(int column) const {
        if (is_label) return label_or_start == column ? (REAL)1 : (REAL)0;
        return element(data, type, label_or_start + column);
    }
};

// A set's targets: class indices, or a matrix of as many columns as there are outputs.
struct Targets {
    const void* data;
    int type, is_labels;

    // A row's; its label is read once, however many columns are looked at.
    __device__ Target of(INDEX row, int width) const {
        return {data, type, is_labels, is_labels ? (INDEX)element(data, type, row) : row * width};
    }
};

// The loss of the set's row `row`, whose outputs these are. Where `train` says so, its gradient takes the place of the
// outputs, through the ReLU that they may have come through. `loss` is 0 for softmax and cross-entropy, 1 for
// cross-entropy of probabilities, 2 for squared errors; `factor` is 1 / rows, or what MSE has there.
__device__ double row_loss(REAL* output, int width, Targets targets, INDEX row, int loss, int relu, REAL factor,
                           int train) {
    const Target target = targets.of(row, width);
    double sum = 0;
    REAL highest = 0, total = 0;
    if (loss == 0) {
        highest = output[0];
        for (int column = 1; column < width; ++column) highest = output[column] > highest ? output[column] : highest;
        for (int column = 0; column < width; ++column) total += exp(output[column] - highest);
        total = log(total);
    }
    for (int column = 0; column < width; ++column) {
        REAL wanted = target.at(column);
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
    return sum;
}

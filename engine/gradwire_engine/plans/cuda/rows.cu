// The functions that all kernels share: access to data of any type, and the loss of one row. kernels.py prepends this
// file to the kernels.
//
// kernels.py also prepends the definitions of some macros: REAL (float or double), INDEX (long long), the loss codes,
// and FOR_EACH_SOURCE_TYPE, which lists the codes and types of the data. All matrices are row-major.

// Casts the data pointer to the type with the given code, and calls `work` with it.
template <typename Work>
__device__ void with_type(const void* data, int type, Work work) {
#define SOURCE_CASE(code, Type) case code: work((const Type*)data); break;
    switch (type) { FOR_EACH_SOURCE_TYPE(SOURCE_CASE) }
#undef SOURCE_CASE
}

__device__ REAL element(const void* source, int type, INDEX at) {
    REAL value = 0;
    with_type(source, type, [&](auto* data) { value = (REAL)data[at]; });
    return value;
}

__device__ REAL rectified(REAL value, int relu) { return relu && value < 0 ? (REAL)0 : value; }

// The targets of one row. If the targets are labels, the target is 1 for the row's class and 0 for all other classes.
// Otherwise, it is a row of a matrix.
struct Target {
    const void* data;
    int type, is_label;
    INDEX label_or_start;

    __device__ REAL at(int column) const {
        if (is_label) return label_or_start == column ? (REAL)1 : (REAL)0;
        return element(data, type, label_or_start + column);
    }
};

// The targets of a data set: class indices, or a matrix with a column for each output.
struct Targets {
    const void* data;
    int type, is_labels;

    // Reads the label of the row only once, so that `at` does not read it again for each column.
    __device__ Target of(INDEX row, int width) const {
        return {data, type, is_labels, is_labels ? (INDEX)element(data, type, row) : row * width};
    }
};

// The parameters of row_loss. `kind` is a loss code, `relu` tells whether the outputs come from a ReLU, `factor` is the
// gradient factor (1 / rows times the factor of the loss), and `train` tells whether to compute the gradient.
struct LossTerms {
    Targets targets;
    int kind, relu;
    REAL factor;
    int train;
};

// Returns the loss of row `row` of the data set. If `train` is set, replaces the outputs with their gradient, taking a
// final ReLU into account.
__device__ double row_loss(REAL* output, int width, LossTerms terms, INDEX row) {
    const Target target = terms.targets.of(row, width);
    double sum = 0;
    REAL highest = 0, total = 0;
    if (terms.kind == LOGITS) {
        highest = output[0];
        for (int column = 1; column < width; ++column) highest = output[column] > highest ? output[column] : highest;
        for (int column = 0; column < width; ++column) total += exp(output[column] - highest);
        total = log(total);
    }
    for (int column = 0; column < width; ++column) {
        REAL expected = target.at(column);
        REAL gradient;
        if (terms.kind == LOGITS) {
            REAL log_p = output[column] - highest - total;
            sum -= (double)(expected * log_p);
            gradient = (exp(log_p) - expected) * terms.factor;
        } else if (terms.kind == PROBABILITIES) {
            REAL p = output[column] < (REAL)1e-12 ? (REAL)1e-12 : output[column] > 1 ? (REAL)1 : output[column];
            sum -= (double)(expected * log(p));
            gradient = -expected / p * terms.factor;
        } else {
            REAL error = output[column] - expected;
            sum += (double)(error * error);
            gradient = error * terms.factor;
        }
        if (terms.train) output[column] = terms.relu && !(output[column] > 0) ? (REAL)0 : gradient;
    }
    return sum;
}

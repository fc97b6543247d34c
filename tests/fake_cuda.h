// The part of CUDA that the kernels use, on a CPU. Every thread of a grid is a context, which runs until it has to wait
// for others. A seed draws which of them runs next; seed 0 stands for a fixed order. A kernel in which a barrier is
// missing then gives different results for different seeds.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

using std::exp;
using std::log;

struct Index { unsigned x; };
static Index blockIdx, blockDim, threadIdx, gridDim;
#define __global__ static
#define __device__
#define __shared__ static  // Correct for kernels of one block. Dynamic shared memory belongs to each Block below.
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

namespace fake_cuda {

const size_t STACK = 32768;
const unsigned MAX_ROUNDS = 300;
const unsigned CANARY = 0x5AFE5AFE;

// A barrier for the threads of a block, or of a warp. `phase` counts how often all of them have arrived.
struct Barrier { unsigned size, arrived, phase; };

// The context starts a thread, at the cost of a system call; after that, jumps leave and resume it.
struct Thread {
    ucontext_t context;
    jmp_buf resume_point;
    unsigned block, index;
    bool started, ended;
    // The barrier at which it waits, and the phase whose end it waits for.
    const Barrier* barrier;
    unsigned phase;

    bool blocked() const { return ended || (barrier && barrier->phase == phase); }
};

struct Block {
    Barrier all;
    std::vector<Barrier> warps;
    std::vector<double> shared;
    std::vector<double> lanes;
};

static std::vector<Thread> threads;
static std::vector<Block> blocks;
static jmp_buf scheduler;
static Thread* running;
static std::function<void()> body;

static void yield() {
    if (!_setjmp(running->resume_point)) _longjmp(scheduler, 1);
}

static void wait(Barrier& barrier) {
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        ++barrier.phase;
        return;
    }
    running->barrier = &barrier;
    running->phase = barrier.phase;
    yield();
}

static void run_thread() {
    body();
    running->ended = true;
    yield();
}

static Block& block() { return blocks[blockIdx.x]; }

static void resume(Thread& thread) {
    running = &thread;
    blockIdx.x = thread.block;
    threadIdx.x = thread.index;
    if (_setjmp(scheduler)) return;
    if (thread.started) _longjmp(thread.resume_point, 1);
    thread.started = true;
    setcontext(&thread.context);
}

// Runs a kernel whose threads wait for each other: they take turns. Returns whether it stayed within its shared memory.
static bool run_interleaved(unsigned grid, unsigned size, size_t shared_bytes, unsigned seed,
                            std::function<void()> kernel) {
    gridDim.x = grid;
    blockDim.x = size;
    body = kernel;
    size_t words = shared_bytes / sizeof(double) + 2;
    blocks.assign(grid, Block());
    for (Block& each : blocks) {
        each.all = {size, 0, 0};
        each.warps.assign(size / 32, Barrier{32, 0, 0});
        each.lanes.assign(size, 0);
        // Not zeros: shared memory is uninitialised.
        each.shared.assign(words, NAN);
        std::memcpy((char*)each.shared.data() + shared_bytes, &CANARY, sizeof CANARY);
    }
    threads.assign((size_t)grid * size, Thread());
    std::unique_ptr<char[]> stacks(new char[threads.size() * STACK]);
    for (size_t at = 0; at < threads.size(); ++at) {
        Thread& thread = threads[at];
        thread.block = at / size;
        thread.index = at % size;
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = stacks.get() + at * STACK;
        thread.context.uc_stack.ss_size = STACK;
        makecontext(&thread.context, run_thread, 0);
    }
    std::minstd_rand random(seed);
    size_t left = threads.size();
    for (unsigned turn = 0; left > 0; ++turn) {
        // One block may run far ahead of the others, and some of its warps and threads far ahead of the rest.
        const size_t first = (seed ? random() : turn) % grid * size;
        const unsigned lazy_warps = seed && random() % 2 ? random() : 0;
        for (unsigned rounds = seed ? MAX_ROUNDS >> random() % 9 : 1; rounds > 0; --rounds)
            for (size_t at = first; at < first + size; ++at) {
                const bool lazy = lazy_warps >> threads[at].index / 32 & 1 || (seed && random() % 2);
                if (lazy || threads[at].blocked()) continue;
                resume(threads[at]);
                left -= threads[at].ended;
            }
    }
    for (Block& each : blocks)
        if (std::memcmp((char*)each.shared.data() + shared_bytes, &CANARY, sizeof CANARY)) return false;
    return true;
}

// Runs a kernel whose threads do not wait for each other: one thread after the other.
template <typename Kernel>
static bool run_in_sequence(unsigned grid, unsigned size, size_t, unsigned, Kernel kernel) {
    gridDim.x = grid;
    blockDim.x = size;
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < size; ++threadIdx.x) kernel();
    return true;
}

}  // namespace fake_cuda

static void __syncthreads() { fake_cuda::wait(fake_cuda::block().all); }
static void __nanosleep(unsigned) { fake_cuda::yield(); }
static void __threadfence() {}

template <typename Value>
static Value __shfl_xor_sync(unsigned, Value value, int lane_mask) {
    fake_cuda::Block& block = fake_cuda::block();
    fake_cuda::Barrier& warp = block.warps[threadIdx.x / 32];
    block.lanes[threadIdx.x] = value;
    fake_cuda::wait(warp);
    Value theirs = (Value)block.lanes[threadIdx.x ^ lane_mask];
    fake_cuda::wait(warp);
    return theirs;
}

template <typename Value>
static Value atomicAdd(Value* at, Value amount) {
    Value before = *at;
    *at += amount;
    return before;
}

template <typename Value>
static Value __ldcg(const Value* at) { return *at; }

static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a > b ? a : b; }

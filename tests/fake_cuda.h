// As much of CUDA as the kernels use, on a processor: every thread of a grid is a context of its own, which runs until it
// has to wait for others. Which of them runs next is drawn by a seed, except for seed 0: a kernel in which a wait is
// missing comes to other results then.

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

struct Place { unsigned x; };
static Place blockIdx, blockDim, threadIdx, gridDim;
#define __global__ static
#define __device__
#define __shared__ static  // Right for kernels of one block; memory of a size given at the launch is the block's own.
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

namespace fake_cuda {

const size_t STACK = 32768;
const unsigned MOST_ROUNDS = 300;
const unsigned CANARY = 0x5AFE5AFE;

// Some threads that wait for each other: those of a block, or of a warp.
struct Meeting { unsigned size, arrived, turn; };

// Begun by its context, which costs a system call; after that, it is left and come back to by jumps.
struct Thread {
    ucontext_t context;
    jmp_buf place;
    unsigned block, index;
    bool begun, ended;
    // Where it waits, and for which turn to be over.
    const Meeting* meeting;
    unsigned turn;

    bool stays() const;
};

bool Thread::stays() const { return ended || (meeting && meeting->turn == turn); }

struct Block {
    Meeting all;
    std::vector<Meeting> warps;
    std::vector<double> shared;
    std::vector<double> lanes;
};

static std::vector<Thread> threads;
static std::vector<Block> blocks;
static jmp_buf scheduler;
static Thread* running;
static std::function<void()> body;

static void others() {
    if (!_setjmp(running->place)) _longjmp(scheduler, 1);
}

static void wait(Meeting& meeting) {
    if (++meeting.arrived == meeting.size) {
        meeting.arrived = 0;
        ++meeting.turn;
        return;
    }
    running->meeting = &meeting;
    running->turn = meeting.turn;
    others();
}

static void run_thread() {
    body();
    running->ended = true;
    others();
}

static Block& block() { return blocks[blockIdx.x]; }

static void resume(Thread& thread) {
    running = &thread;
    blockIdx.x = thread.block;
    threadIdx.x = thread.index;
    if (_setjmp(scheduler)) return;
    if (thread.begun) _longjmp(thread.place, 1);
    thread.begun = true;
    setcontext(&thread.context);
}

// Runs a kernel that waits: all its threads take turns. Returns whether it kept to its shared memory.
static bool run_together(unsigned grid, unsigned size, size_t shared_bytes, unsigned seed, std::function<void()> kernel) {
    gridDim.x = grid;
    blockDim.x = size;
    body = kernel;
    size_t words = shared_bytes / sizeof(double) + 2;
    blocks.assign(grid, Block());
    for (Block& each : blocks) {
        each.all = {size, 0, 0};
        each.warps.assign(size / 32, Meeting{32, 0, 0});
        each.lanes.assign(size, 0);
        // Not zeros: shared memory holds what was there before.
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
        for (unsigned rounds = seed ? MOST_ROUNDS >> random() % 9 : 1; rounds > 0; --rounds)
            for (size_t at = first; at < first + size; ++at) {
                const bool lazy = lazy_warps >> threads[at].index / 32 & 1 || (seed && random() % 2);
                if (lazy || threads[at].stays()) continue;
                resume(threads[at]);
                left -= threads[at].ended;
            }
    }
    for (Block& each : blocks)
        if (std::memcmp((char*)each.shared.data() + shared_bytes, &CANARY, sizeof CANARY)) return false;
    return true;
}

// Runs a kernel whose threads do not wait, one after the other.
template <typename Kernel>
static bool run_apart(unsigned grid, unsigned size, size_t, unsigned, Kernel kernel) {
    gridDim.x = grid;
    blockDim.x = size;
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < size; ++threadIdx.x) kernel();
    return true;
}

}  // namespace fake_cuda

static void __syncthreads() { fake_cuda::wait(fake_cuda::block().all); }
static void __nanosleep(unsigned) { fake_cuda::others(); }
static void __threadfence() {}

template <typename Value>
static Value __shfl_xor_sync(unsigned, Value value, int apart) {
    fake_cuda::Block& block = fake_cuda::block();
    fake_cuda::Meeting& warp = block.warps[threadIdx.x / 32];
    block.lanes[threadIdx.x] = value;
    fake_cuda::wait(warp);
    Value theirs = (Value)block.lanes[threadIdx.x ^ apart];
    fake_cuda::wait(warp);
    return theirs;
}

template <typename Value>
static Value atomicAdd(Value* at, Value more) {
    Value before = *at;
    *at += more;
    return before;
}

template <typename Value>
static Value __ldcg(const Value* at) { return *at; }

static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a > b ? a : b; }

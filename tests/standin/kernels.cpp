// frame.cu as plain C++: what CUDA has besides the language, and a launch that runs thread after
// thread. The kernels have no barrier and share nothing, so that the order is free.
// Compiled as a library for Python, and with EDGESEG_DRIVER as a program that checks itself.

struct Place {
    unsigned x, y, z;
};
static Place blockIdx, threadIdx, blockDim;

#define __global__
#define __device__
#define __launch_bounds__(...)

#include EDGESEG_KERNELS

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

template <class Arguments>
static void run(void (*kernel)(Arguments), const unsigned *grid, const void *bytes) {
    Arguments arguments;
    std::memcpy(&arguments, bytes, sizeof arguments);
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
                    for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
                        kernel(arguments);
}

// The size of its structure; 0 where there is no such kernel. Runs it unless `grid` is null.
extern "C" unsigned long launch(const char *name, const unsigned *grid, const unsigned *block,
                                const void *arguments) {
    if (grid != nullptr) blockDim = {block[0], block[1], block[2]};
    const auto take = [&](auto *kernel, auto type, const char *known) -> unsigned long {
        if (std::strcmp(name, known) != 0) return 0;
        if (grid != nullptr) run(kernel, grid, arguments);
        return sizeof type;
    };
    return take(preprocess, Preprocess{}, "preprocess") + take(argmax, Argmax{}, "argmax") +
           take(overlay, Overlay{}, "overlay");
}

#ifdef EDGESEG_DRIVER
// Replays launches that Python wrote: a count of buffers, then each one's length and bytes; name,
// grid, block, arguments; pairs of an offset in the arguments and a buffer whose address belongs
// there. Each buffer is its own allocation, so that a sanitiser sees each step beyond one. Prints
// a sum of all bytes.
static unsigned number() {
    unsigned value = 0;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) std::exit(2);
    return value;
}

static std::vector<char> bytes() {
    std::vector<char> result(number());
    if (std::fread(result.data(), 1, result.size(), stdin) != result.size()) std::exit(2);
    return result;
}

int main() {
    for (unsigned left = number(); left > 0; --left) {
        std::vector<std::vector<char>> buffers(number());
        for (auto &buffer : buffers) buffer = bytes();
        std::vector<char> name = bytes(), arguments = bytes();
        unsigned sizes[6];
        for (auto &size : sizes) size = number();
        for (unsigned pairs = number(); pairs > 0; --pairs) {
            const unsigned offset = number();
            const void *address = buffers[number()].data();
            std::memcpy(&arguments[offset], &address, sizeof address);
        }
        name.push_back(0);
        if (launch(name.data(), sizes, sizes + 3, arguments.data()) != arguments.size()) return 3;
        unsigned long long sum = 1469598103934665603ull;  // FNV-1a
        for (const auto &buffer : buffers)
            for (const char each : buffer)
                sum = (sum ^ static_cast<unsigned char>(each)) * 1099511628211ull;
        std::printf("%s %016llx\n", name.data(), sum);
    }
}
#endif

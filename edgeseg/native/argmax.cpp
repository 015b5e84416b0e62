#include "argmax.hpp"

#include <algorithm>

#include "dispatch.hpp"
#include "parallel.hpp"

namespace edgeseg {
namespace {

constexpr int kBlock = 4096;  // pixels; whole vectors, and enough for a thread to take at a time

const auto &row_kernel(const float *) { return rows().argmax_float; }
const auto &row_kernel(const std::int16_t *) { return rows().argmax_half; }
const auto &row_kernel(const std::int8_t *) { return rows().argmax_int8; }

}  // namespace

template <class Logit>
void argmax(const Logit *logits, int channels, std::size_t pixels, std::uint8_t *out, int threads) {
    const auto kernel = row_kernel(logits);
    const int blocks = static_cast<int>((pixels + kBlock - 1) / kBlock);
    share_out(blocks, threads, [=](int begin, int end) {
        const std::size_t first = static_cast<std::size_t>(begin) * kBlock;
        const std::size_t last = std::min(pixels, static_cast<std::size_t>(end) * kBlock);
        kernel(logits + first, static_cast<std::ptrdiff_t>(pixels), channels, last - first,
               out + first);
    });
}

template void argmax(const float *, int, std::size_t, std::uint8_t *, int);
template void argmax(const std::int16_t *, int, std::size_t, std::uint8_t *, int);
template void argmax(const std::int8_t *, int, std::size_t, std::uint8_t *, int);

}  // namespace edgeseg

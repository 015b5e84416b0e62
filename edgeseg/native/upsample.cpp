// Bilinear logits at the frame's size, then argmax, where that needs doing.
//
// Where the four neighbours of a pixel have the same class k, it is the answer: the interpolated
// logits are convex combinations, so k's stays at least as large as any other; and it stays
// larger than those of the classes before k, for which k as the first of the largest is strictly
// larger at all four. So far the real numbers; rounded ones can only fall together, which would
// hand a tie to a class before k. The definition, here and in the NumPy twin, is therefore: the
// class that the four neighbours agree on, else the argmax of the float32 interpolation.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "argmax.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

namespace edgeseg {
namespace {

// A value is that at `first` * (1 - weight) + that at `second` * weight.
struct Pair {
    int first, second;
    float weight;
};

std::vector<Pair> pairs(int source, int target) {
    std::vector<Pair> result(target);
    for (int i = 0; i < target; ++i) {
        const double position = std::clamp((i + 0.5) * source / target - 0.5, 0.0, source - 1.0);
        const int first = static_cast<int>(position);
        result[i] = {first, std::min(first + 1, source - 1),
                     static_cast<float>(position - first)};
    }
    return result;
}

// The pixels of a row between two rows of the network where its classes disagree.
struct Open {
    std::vector<int> columns;
    std::vector<Pair> taps;
    std::vector<float> upper, lower;  // (channels, columns): logits of the two rows there
    std::vector<std::uint8_t> classes;
};

// Writes the settled classes to `row`, collects the columns that are open.
void settle(const std::uint8_t *upper, const std::uint8_t *lower, const std::vector<Pair> &across,
            std::uint8_t *row, Open &open) {
    open.columns.clear();
    open.taps.clear();
    for (int x = 0; x < static_cast<int>(across.size()); ++x) {
        const auto [first, second, weight] = across[x];
        const int label = upper[first];
        row[x] = static_cast<std::uint8_t>(label);
        if ((upper[second] ^ label) | (lower[first] ^ label) | (lower[second] ^ label)) {
            open.columns.push_back(x);
            open.taps.push_back(across[x]);
        }
    }
}

void interpolate(const Logits &logits, int row, const std::vector<Pair> &taps,
                 std::vector<float> &out) {
    out.resize(taps.size() * logits.channels);
    float *to = out.data();
    for (int c = 0; c < logits.channels; ++c) {
        const float *from = logits.data + c * logits.plane + row * logits.stride;
        for (const auto &[first, second, weight] : taps)
            *to++ = from[first] * (1 - weight) + from[second] * weight;
    }
}

// One row of the frame; its settled classes are there already.
void close(Open &open, float weight, int channels, std::uint8_t *row) {
    const std::size_t count = open.columns.size();
    open.classes.resize(count);
    rows().argmax_blended(open.upper.data(), open.lower.data(), weight,
                          static_cast<std::ptrdiff_t>(count), channels, count,
                          open.classes.data());
    for (std::size_t i = 0; i < count; ++i) row[open.columns[i]] = open.classes[i];
}

}  // namespace

void argmax_upsampled(const Logits &logits, int height, int width, std::uint8_t *out,
                      int threads) {
    const std::vector<Pair> down = pairs(logits.height, height), across = pairs(logits.width, width);
    const std::size_t columns = logits.width;
    std::vector<std::uint8_t> labels(logits.height * columns);
    share_out(logits.height, threads, [&](int begin, int end) {
        for (int y = begin; y < end; ++y)
            rows().argmax_float(logits.data + y * logits.stride, logits.plane, logits.channels,
                                columns, &labels[y * columns]);
    });
    share_out(height, threads, [&](int begin, int end) {
        std::vector<std::uint8_t> settled(width);
        Open open;
        for (int y = begin, between = -1; y < end; ++y) {
            const auto [upper, lower, weight] = down[y];
            if (upper != between) {
                settle(&labels[upper * columns], &labels[lower * columns], across, settled.data(),
                       open);
                interpolate(logits, upper, open.taps, open.upper);
                interpolate(logits, lower, open.taps, open.lower);
                between = upper;
            }
            std::uint8_t *row = out + static_cast<std::size_t>(y) * width;
            std::memcpy(row, settled.data(), width);
            if (!open.columns.empty()) close(open, weight, logits.channels, row);
        }
    });
}

}  // namespace edgeseg

// The arithmetic is that of OpenCV's INTER_LINEAR_EXACT and of its BGR2GRAY: 8-bit weights,
// exact sums, one rounding at the end. As nothing is rounded between the two directions, their
// order is free: rows are blended first, in one pass over memory that vectorises.

#include "preprocess.hpp"

#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"

namespace edgeseg {
namespace {

struct Position {
    int first, weight;  // in 1/256 of the next one
};

std::vector<Position> positions(int source, int target) {
    std::vector<Position> result(target);
    // The same roundings as the reference: the ratio the other way round, then its inverse.
    const double scale = 1.0 / (static_cast<double>(target) / source);
    for (int i = 0; i < target; ++i) {
        const double position = scale * (i + 0.5) - 0.5;
        const int first = static_cast<int>(std::floor(position));
        if (first < 0)
            result[i] = {0, 0};
        else if (first >= source - 1)
            result[i] = {source - 1, 0};
        else
            result[i] = {first, static_cast<int>(std::nearbyint((position - first) * 256))};
    }
    return result;
}

// Columns in whole steps of blend_columns.
int whole(int columns) { return (columns + kColumns - 1) / kColumns * kColumns; }

std::vector<Tap> taps(int source, int target, int channels) {
    std::vector<Tap> result;
    result.reserve(whole(target));
    for (const auto &[first, weight] : positions(source, target))
        result.push_back({first * channels, static_cast<std::uint32_t>(weight << 16 | (256 - weight))});
    result.resize(whole(target), Tap{0, 256});
    return result;
}

// A channel of a row of the tensor. Outside the levels: instructions that gather are no faster
// than loads one by one.
template <class Value>
void fill(const std::uint8_t *pixels, const Levels<Value> &levels, int channel, int width,
          std::ptrdiff_t step, Value *out) {
    if constexpr (std::is_same_v<Value, float>)
        if (levels.lines != nullptr && step == 1) {
            rows().scale(pixels, levels.lines[channel], width, out);
            return;
        }
    const Value *table = levels.table + 256 * channel;
    for (int x = 0; x < width; ++x) out[x * step] = table[pixels[x]];
}

}  // namespace

template <class Value>
void preprocess(const Picture &picture, const Target<Value> &target, const Levels<Value> &levels,
                bool rgb, int threads) {
    const Rows &simd = rows();
    const std::vector<Position> down = positions(picture.height, target.height);
    const std::vector<Tap> across = taps(picture.width, target.width, picture.channels);
    const std::size_t elements = static_cast<std::size_t>(picture.width) * picture.channels;
    const bool grey = target.channels == 1;
    const std::array<int, 3> order = picture.channels == 1 ? std::array{0, 0, 0}
                                     : rgb && !grey        ? std::array{2, 1, 0}
                                                           : std::array{0, 1, 2};

    share_out(target.height, threads, [&](int begin, int end) {
        std::vector<std::int16_t> row(elements + kRowSlack);
        const int plane = whole(target.width);
        std::vector<std::uint8_t> planes(3 * static_cast<std::size_t>(plane));
        for (int y = begin; y < end; ++y) {
            const auto [first, weight] = down[y];
            const std::uint8_t *above = picture.data + first * picture.stride;
            simd.blend_rows(above, weight == 0 ? above : above + picture.stride, weight, row.data(),
                            elements);
            simd.blend_columns(row.data(), across.data(), picture.channels, target.width,
                               planes.data(), plane);
            if (grey && picture.channels > 1) simd.to_grey(planes.data(), plane, target.width);
            Value *out = target.data + y * target.row_step;
            for (int c = 0; c < target.channels; ++c, out += target.channel_step)
                fill(&planes[order[c] * static_cast<std::size_t>(plane)], levels, c, target.width,
                     target.column_step, out);
        }
    });
}

template void preprocess(const Picture &, const Target<float> &, const Levels<float> &, bool, int);
template void preprocess(const Picture &, const Target<std::uint16_t> &,
                         const Levels<std::uint16_t> &, bool, int);
template void preprocess(const Picture &, const Target<std::uint8_t> &,
                         const Levels<std::uint8_t> &, bool, int);

}  // namespace edgeseg

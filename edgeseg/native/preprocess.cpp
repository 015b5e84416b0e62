// The arithmetic is that of OpenCV's INTER_LINEAR_EXACT and of its BGR2GRAY: 8-bit weights,
// exact sums, one rounding at the end. As nothing is rounded between the two directions, their
// order is free: rows are blended first, in one pass over memory that vectorises.

#include "preprocess.hpp"

#include <array>
#include <cmath>
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

std::vector<Tap> taps(int source, int target, int channels) {
    std::vector<Tap> result;
    result.reserve(target);
    for (const auto &[first, weight] : positions(source, target))
        result.push_back({first * channels, static_cast<std::uint32_t>(weight << 16 | (256 - weight))});
    return result;
}

// Outside the levels: instructions that gather are no faster than loads one by one.
template <int Channels, class Value>
void look_up(const std::uint32_t *pixels, std::array<int, 3> order, const Value *table,
             const Target<Value> &target, Value *out) {
    // Copies: bytes that are written might be anything, for all that the compiler knows.
    const std::ptrdiff_t channel_step = target.channel_step, column_step = target.column_step;
    const int width = target.width;
    if (column_step == 1) {  // planes one by one: narrow stores to three by turns are slow
        for (int c = 0; c < Channels; ++c, table += 256, out += channel_step)
            for (int x = 0; x < width; ++x) out[x] = table[pixels[4 * x + order[c]]];
        return;
    }
    for (int x = 0; x < width; ++x, pixels += 4, out += column_step)
        for (int c = 0; c < Channels; ++c)
            out[c * channel_step] = table[256 * c + pixels[order[c]]];
}

}  // namespace

template <class Value>
void preprocess(const Picture &picture, const Target<Value> &target, const Value *table, bool rgb,
                int threads) {
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
        std::vector<std::uint32_t> pixels(4 * static_cast<std::size_t>(target.width));
        for (int y = begin; y < end; ++y) {
            const auto [first, weight] = down[y];
            const std::uint8_t *above = picture.data + first * picture.stride;
            simd.blend_rows(above, weight == 0 ? above : above + picture.stride, weight, row.data(),
                            elements);
            simd.blend_columns(row.data(), across.data(), picture.channels, target.width,
                               pixels.data());
            if (grey && picture.channels > 1) simd.to_grey(pixels.data(), target.width);
            Value *out = target.data + y * target.row_step;
            if (grey)
                look_up<1>(pixels.data(), order, table, target, out);
            else
                look_up<3>(pixels.data(), order, table, target, out);
        }
    });
}

template void preprocess(const Picture &, const Target<float> &, const float *, bool, int);
template void preprocess(const Picture &, const Target<std::uint16_t> &, const std::uint16_t *,
                         bool, int);
template void preprocess(const Picture &, const Target<std::uint8_t> &, const std::uint8_t *, bool,
                         int);

}  // namespace edgeseg

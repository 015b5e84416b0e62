// The arithmetic of the bilinear resize is that of OpenCV's INTER_LINEAR_EXACT and of its BGR2GRAY: 8-bit weights,
// exact sums, one rounding at the end. As nothing is rounded between the two directions, their
// order is free: rows are blended first, in one pass over memory that vectorises.

#include "preprocess.hpp"

#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "average.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

namespace edgeseg {
namespace {

// Columns in whole steps of blend_columns.
int whole(int columns) { return (columns + kColumns - 1) / kColumns * kColumns; }

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
    result.reserve(whole(target));
    for (const auto &[first, weight] : positions(source, target))
        result.push_back({first * channels, static_cast<std::uint32_t>(weight << 16 | (256 - weight))});
    result.resize(whole(target), Tap{0, 256});
    return result;
}

// Rows of a picture resized bilinearly, for one thread.
class Bilinear {
public:
    Bilinear(const Picture &picture, int height, int width)
        : picture_(picture),
          width_(width),
          down_(positions(picture.height, height)),
          across_(taps(picture.width, width, picture.channels)),
          elements_(static_cast<std::size_t>(picture.width) * picture.channels),
          row_(elements_ + kRowSlack) {}

    // As Average::row; planes have whole steps of blend_columns.
    void row(int y, std::uint8_t *planes, std::ptrdiff_t plane) {
        const auto [first, weight] = down_[y];
        const std::uint8_t *above = picture_.data + first * picture_.stride;
        rows().blend_rows(above, weight == 0 ? above : above + picture_.stride, weight, row_.data(),
                          elements_);
        rows().blend_columns(row_.data(), across_.data(), picture_.channels, width_, planes, plane);
    }

private:
    const Picture &picture_;
    int width_;
    std::vector<Position> down_;
    std::vector<Tap> across_;
    std::size_t elements_;
    std::vector<std::int16_t> row_;
};

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

template <class Resized, class Value>
void fill_rows(const Picture &picture, const Target<Value> &target, const Levels<Value> &levels,
               bool rgb, int threads) {
    const bool grey = target.channels == 1;
    const std::array<int, 3> order = picture.channels == 1 ? std::array{0, 0, 0}
                                     : rgb && !grey        ? std::array{2, 1, 0}
                                                           : std::array{0, 1, 2};
    share_out(target.height, threads, [&](int begin, int end) {
        Resized resized(picture, target.height, target.width);
        const int plane = whole(target.width);
        std::vector<std::uint8_t> planes(3 * static_cast<std::size_t>(plane));
        for (int y = begin; y < end; ++y) {
            resized.row(y, planes.data(), plane);
            if (grey && picture.channels > 1) rows().to_grey(planes.data(), plane, target.width);
            Value *out = target.data + y * target.row_step;
            for (int c = 0; c < target.channels; ++c, out += target.channel_step)
                fill(&planes[order[c] * static_cast<std::size_t>(plane)], levels, c, target.width,
                     target.column_step, out);
        }
    });
}

}  // namespace

template <class Value>
void preprocess(const Picture &picture, const Target<Value> &target, const Levels<Value> &levels,
                Manner manner, int threads) {
    if (manner.area)
        fill_rows<Average>(picture, target, levels, manner.rgb, threads);
    else
        fill_rows<Bilinear>(picture, target, levels, manner.rgb, threads);
}

template void preprocess(const Picture &, const Target<float> &, const Levels<float> &, Manner,
                         int);
template void preprocess(const Picture &, const Target<std::uint16_t> &,
                         const Levels<std::uint16_t> &, Manner, int);
template void preprocess(const Picture &, const Target<std::uint8_t> &,
                         const Levels<std::uint8_t> &, Manner, int);

}  // namespace edgeseg

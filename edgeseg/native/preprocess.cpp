// The arithmetic is that of OpenCV's INTER_LINEAR_EXACT and of its BGR2GRAY: 8-bit weights,
// exact sums, one rounding at the end. As nothing is rounded between the two directions, their
// order is free: rows are blended first, in one pass over memory that vectorises.

#include "preprocess.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

// The compiler makes one version a CPU generation and the loader picks; only ELF with glibc can.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define EDGESEG_CPU_CLONES __attribute__((target_clones("default", "avx2")))
#else
#define EDGESEG_CPU_CLONES
#endif

namespace edgeseg {
namespace {

// A pixel of the result is (first * (256 - weight) + second * weight) / 256 along one axis.
struct Tap {
    int first, second, weight;
};

std::vector<Tap> taps(int source, int target) {
    std::vector<Tap> result(target);
    // The same roundings as the reference: the ratio the other way round, then its inverse.
    const double scale = 1.0 / (static_cast<double>(target) / source);
    for (int i = 0; i < target; ++i) {
        const double position = scale * (i + 0.5) - 0.5;
        const int first = static_cast<int>(std::floor(position));
        if (first < 0)
            result[i] = {0, 0, 0};
        else if (first >= source - 1)
            result[i] = {source - 1, source - 1, 0};
        else
            result[i] = {first, first + 1,
                         static_cast<int>(std::nearbyint((position - first) * 256))};
    }
    return result;
}

// out = above * (256 - weight) + below * weight, byte by byte; at most 255 * 256.
EDGESEG_CPU_CLONES void blend_rows(const std::uint8_t *above, const std::uint8_t *below,
                                   int weight, std::uint16_t *out, std::size_t count) {
    const auto upper = static_cast<std::uint16_t>(256 - weight);
    const auto lower = static_cast<std::uint16_t>(weight);
    for (std::size_t i = 0; i < count; ++i)
        out[i] = static_cast<std::uint16_t>(above[i] * upper + below[i] * lower);
}

inline std::uint8_t blend_columns(const std::uint16_t *row, const Tap &tap) {
    const std::uint32_t left = row[tap.first], right = row[tap.second];
    return static_cast<std::uint8_t>((left * (256 - tap.weight) + right * tap.weight + 32768) >>
                                     16);
}

inline std::uint8_t luma(std::uint32_t blue, std::uint32_t green, std::uint32_t red) {
    // ITU-R BT.601 in 15 bits.
    return static_cast<std::uint8_t>((blue * 3735 + green * 19235 + red * 9798 + 16384) >> 15);
}

// One row of the tensor: `out` are its channels, `row` the blended rows of the picture. The taps
// count in elements of `row`.
template <int Source, int Planes>
void write_row(const std::uint16_t *row, const std::vector<Tap> &columns, const float *table,
               const std::array<float *, 3> &out) {
    for (std::size_t x = 0; x < columns.size(); ++x) {
        std::array<std::uint8_t, Source> pixel;
        for (int c = 0; c < Source; ++c) pixel[c] = blend_columns(row + c, columns[x]);
        if constexpr (Source == Planes)
            for (int c = 0; c < Planes; ++c) out[c][x] = table[256 * c + pixel[c]];
        else if constexpr (Source == 1)
            for (int c = 0; c < Planes; ++c) out[c][x] = table[256 * c + pixel[0]];
        else
            out[0][x] = table[luma(pixel[0], pixel[1], pixel[2])];
    }
}

}  // namespace

void preprocess(const Picture &picture, const Target &target, const float *table, bool rgb) {
    const std::vector<Tap> rows = taps(picture.height, target.region_height);
    std::vector<Tap> columns = taps(picture.width, target.region_width);
    for (Tap &tap : columns) {
        tap.first *= picture.channels;
        tap.second *= picture.channels;
    }
    std::array<float, 3 * 256> ordered{};  // tables in the order of the picture's channels
    for (int c = 0; c < target.channels; ++c) {
        const int from = rgb && picture.channels > 1 ? target.channels - 1 - c : c;
        std::copy_n(table + 256 * from, 256, ordered.begin() + 256 * c);
    }
    const std::size_t elements = static_cast<std::size_t>(picture.width) * picture.channels;
    std::vector<std::uint16_t> row(elements);
    const auto write = picture.channels == 1
                           ? (target.channels == 1 ? write_row<1, 1> : write_row<1, 3>)
                           : (target.channels == 1 ? write_row<3, 1> : write_row<3, 3>);
    for (int y = 0; y < target.region_height; ++y) {
        blend_rows(picture.data + rows[y].first * picture.stride,
                   picture.data + rows[y].second * picture.stride, rows[y].weight, row.data(),
                   elements);
        std::array<float *, 3> out{};
        for (int c = 0; c < target.channels; ++c) {
            const int plane = rgb && picture.channels > 1 ? target.channels - 1 - c : c;
            out[c] = target.data + target.left +
                     (static_cast<std::size_t>(plane) * target.height + target.top + y) *
                         target.width;
        }
        write(row.data(), columns, ordered.data(), out);
    }
}

}  // namespace edgeseg

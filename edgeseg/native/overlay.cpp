// The frame is larger than the label map: what belongs to a row of the map, its colours spread
// over the frame's width, serves all rows of the frame that it covers.

#include "overlay.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"

namespace edgeseg {
namespace {

constexpr int kRun = 5;  // whole pixels in a Shade

using Shade = std::array<std::uint16_t, 16>;  // blue, green, red and again

// What each label adds to the frame's share.
std::array<Shade, 256> shades(const Look &look) {
    std::array<Shade, 256> result{};
    result[0].fill(kClear);
    for (int label = 1; label < 256; ++label)
        for (std::size_t i = 0; i < result[label].size(); ++i)
            result[label][i] = static_cast<std::uint16_t>(
                look.colours[3 * label + i % 3] * look.weight + 128);
    return result;
}

// starts[i] … starts[i + 1]: where source index i lies among the ascending `indices`.
std::vector<int> starts(const std::int32_t *indices, int count, int source) {
    std::vector<int> result(source + 1);
    for (int i = 0; i < count; ++i) ++result[indices[i] + 1];
    std::partial_sum(result.begin(), result.end(), result.begin());
    return result;
}

// Copies whole runs: what is too much the next label covers, or the slack at the row's end.
void spread(const std::uint8_t *labels, const std::vector<int> &starts,
            const std::array<Shade, 256> &shades, std::uint16_t *out) {
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
        const Shade shade = shades[labels[i]];
        for (int x = starts[i]; x < starts[i + 1]; x += kRun)
            std::memcpy(out + 3 * x, shade.data(), sizeof shade);
    }
}

// The label map at the frame's width.
std::vector<std::uint8_t> widened(const Labels &labels, int width) {
    std::vector<std::uint8_t> result(static_cast<std::size_t>(labels.height) * width);
    for (int y = 0; y < labels.height; ++y)
        for (int x = 0; x < width; ++x)
            result[static_cast<std::size_t>(y) * width + x] =
                labels.data[y * labels.stride + labels.columns[x]];
    return result;
}

bool all_zero(const std::uint8_t *eight) {
    std::uint64_t word;
    std::memcpy(&word, eight, sizeof word);
    return word == 0;
}

void draw_rims(const Canvas &canvas, const Labels &labels, const Look &look, int threads) {
    const std::vector<std::uint8_t> wide = widened(labels, canvas.width);
    const auto row = [&](int y) {
        return wide.data() +
               static_cast<std::size_t>(labels.rows[std::clamp(y, 0, canvas.height - 1)]) *
                   canvas.width;
    };
    share_out(canvas.height, threads, [&](int begin, int end) {
        std::vector<std::uint8_t> rim(canvas.width);
        for (int y = begin; y < end; ++y) {
            rows().find_rim(row(y - 1), row(y), row(y + 1), canvas.width, rim.data());
            std::uint8_t *out = canvas.out + static_cast<std::size_t>(y) * canvas.width * 3;
            for (int x = 0; x < canvas.width; ++x) {
                while (x + 8 <= canvas.width && all_zero(&rim[x])) x += 8;
                if (x < canvas.width && rim[x] != 0)
                    std::memcpy(out + 3 * x, look.colours + 3 * rim[x], 3);
            }
        }
    });
}

}  // namespace

void overlay(const Canvas &canvas, const Labels &labels, const Look &look, int threads) {
    const Rows &simd = rows();
    const std::array<Shade, 256> table = shades(look);
    const std::size_t bytes = static_cast<std::size_t>(canvas.width) * 3;
    const std::vector<int> columns = starts(labels.columns, canvas.width, labels.width);
    const auto keep = static_cast<std::uint16_t>(256 - look.weight);

    share_out(canvas.height, threads, [&](int begin, int end) {
        std::vector<std::uint16_t> shade(bytes + sizeof(Shade) / sizeof(std::uint16_t));
        for (int y = begin, spread_row = -1; y < end; ++y) {
            const std::uint8_t *row = labels.data + labels.rows[y] * labels.stride;
            if (labels.rows[y] != spread_row)
                spread(row, columns, table, shade.data());
            spread_row = labels.rows[y];
            simd.lay_over(canvas.frame + y * canvas.stride, shade.data(), keep, bytes,
                          canvas.out + y * bytes);
        }
    });
    if (look.outline) draw_rims(canvas, labels, look, threads);
}

void count_areas(const Labels &labels, int height, int width, std::int64_t *areas) {
    const std::vector<int> down = starts(labels.rows, height, labels.height);
    const std::vector<int> across = starts(labels.columns, width, labels.width);
    // Four tables by turns: neighbours mostly share their label, and would wait for each other.
    std::array<std::array<std::int64_t, 256>, 4> tables{};
    for (int y = 0; y < labels.height; ++y)
        for (int x = 0; x < labels.width; ++x)
            tables[x & 3][labels.data[y * labels.stride + x]] +=
                static_cast<std::int64_t>(down[y + 1] - down[y]) * (across[x + 1] - across[x]);
    for (int label = 0; label < 256; ++label)
        areas[label] = tables[0][label] + tables[1][label] + tables[2][label] + tables[3][label];
}

}  // namespace edgeseg

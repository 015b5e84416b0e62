#include "smooth.hpp"

#include <algorithm>
#include <vector>

#include "dispatch.hpp"

namespace edgeseg {
namespace {

// First of `size` pixels in block `place` of `count`; pixel i is in block i * count / size.
std::ptrdiff_t first_in(int place, int size, int count) {
    return (std::int64_t{place} * size + count - 1) / count;
}

}  // namespace

void smooth(const LabelVotes &map, const VoteLimits &limits, int step) {
    const auto width = static_cast<std::size_t>(map.width);
    std::vector<std::uint8_t> row(width);
    for (int i = 0; i < limits.rows; ++i) {
        const std::uint8_t *blocks = limits.blocks + std::ptrdiff_t{i} * limits.columns;
        for (int j = 0; j < limits.columns; ++j)
            std::fill(row.begin() + first_in(j, map.width, limits.columns),
                      row.begin() + first_in(j + 1, map.width, limits.columns), blocks[j]);
        const std::ptrdiff_t end = first_in(i + 1, map.height, limits.rows);
        for (std::ptrdiff_t y = first_in(i, map.height, limits.rows); y < end; ++y) {
            const std::size_t start = static_cast<std::size_t>(y) * width;
            rows().vote(map.labels + y * map.stride, row.data(), step, width, map.shown + start,
                        map.votes + start);
        }
    }
}

}  // namespace edgeseg

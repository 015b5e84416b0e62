#include "smooth.hpp"

#include <vector>

#include "dispatch.hpp"

namespace edgeseg {

void smooth(const LabelVotes &map, const VoteLimits &limits, int step) {
    const auto width = static_cast<std::size_t>(map.width);
    std::vector<std::uint8_t> row(width);
    for (int y = 0, last = -1; y < map.height; ++y) {
        const int block = static_cast<int>(std::int64_t{y} * limits.rows / map.height);
        if (block != last) {
            const std::uint8_t *blocks = limits.blocks + std::ptrdiff_t{block} * limits.columns;
            for (int x = 0; x < map.width; ++x)
                row[x] = blocks[std::int64_t{x} * limits.columns / map.width];
            last = block;
        }
        const std::size_t start = y * width;
        rows().vote(map.labels + y * map.stride, row.data(), step, width, map.shown + start,
                    map.votes + start);
    }
}

}  // namespace edgeseg

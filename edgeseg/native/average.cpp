#include "average.hpp"

#include <algorithm>

#include "dispatch.hpp"

namespace edgeseg {

std::vector<Cover> covers(int source, int target) {
    std::vector<Cover> result(target);
    for (std::int64_t i = 0; i < target; ++i) {
        const std::int64_t begin = i * source, end = begin + source;  // in parts of a pixel
        const std::int64_t first = begin / target, last = (end - 1) / target;
        const std::int64_t head = std::min((first + 1) * target, end) - begin;
        const std::int64_t tail = last > first ? end - last * target : 0;
        result[i] = {static_cast<int>(first), static_cast<int>(last),
                     static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(tail)};
    }
    return result;
}

Average::Average(const Picture &picture, int height, int width)
    : picture_(picture),
      height_(height),
      width_(width),
      down_(covers(picture.height, height)),
      across_(covers(picture.width, width)),
      sums_(static_cast<std::size_t>(picture.width) * picture.channels) {}

void Average::row(int y, std::uint8_t *planes, std::ptrdiff_t plane) {
    const Cover &down = down_[y];
    std::fill(sums_.begin(), sums_.end(), 0);
    for (int v = down.first; v <= down.last; ++v) {
        const std::uint32_t inner = static_cast<std::uint32_t>(height_);
        const std::uint32_t weight = v == down.first ? down.head : v == down.last ? down.tail : inner;
        rows().add_row(picture_.data + v * picture_.stride, weight, sums_.data(), sums_.size());
    }
    // Half a unit above, the quotient is nowhere near a whole number, and its whole part is right.
    const auto total = static_cast<std::uint64_t>(picture_.height) * picture_.width;
    const double inverse = 1.0 / static_cast<double>(2 * total);
    const int step = picture_.channels, shown = std::min(step, 3);
    for (int x = 0; x < width_; ++x) {
        const Cover &across = across_[x];
        for (int c = 0; c < shown; ++c) {
            const std::uint32_t *sums = sums_.data() + c;
            std::uint64_t between = 0;
            for (int u = across.first + 1; u < across.last; ++u) between += sums[u * step];
            const std::uint64_t sum = std::uint64_t{sums[across.first * step]} * across.head +
                                      between * static_cast<std::uint64_t>(width_) +
                                      std::uint64_t{sums[across.last * step]} * across.tail;
            planes[c * plane + x] = static_cast<std::uint8_t>(
                (static_cast<double>(2 * sum + total) + 0.5) * inverse);
        }
    }
}

}  // namespace edgeseg

// Connected regions of one label; see components.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgeseg {

// A region; right and bottom are past it. Sums are of its pixels' coordinates.
struct Component {
    std::int64_t label, area, left, top, right, bottom, sum_x, sum_y;
};

// The regions of each label but `background` (-1 for none) in a map whose rows are `stride` bytes
// apart, 8-connected, in the order of their first pixels.
std::vector<Component> find_components(const std::uint8_t *labels, std::ptrdiff_t stride,
                                       int height, int width, int background);

}  // namespace edgeseg

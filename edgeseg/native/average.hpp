// The mean of what each pixel of a smaller picture covers of the larger one; see average.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "preprocess.hpp"

namespace edgeseg {

// The pixels `first` … `last` of an axis that one of the target covers: the two ends in part, those
// between in full, which is as many parts as the target has pixels.
struct Cover {
    int first, last;
    std::uint32_t head, tail;  // no tail where both ends are one pixel
};

std::vector<Cover> covers(int source, int target);

// Rows of `picture` averaged to height x width, for one thread. All sums are exact; each mean is
// rounded once, halves up.
class Average {
public:
    Average(const Picture &picture, int height, int width);

    // Row y as planes of bytes, `plane` apart, one a channel and three at most.
    void row(int y, std::uint8_t *planes, std::ptrdiff_t plane);

private:
    const Picture &picture_;
    int height_, width_;
    std::vector<Cover> down_, across_;
    std::vector<std::uint32_t> sums_;
};

}  // namespace edgeseg

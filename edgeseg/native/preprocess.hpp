// Picture -> input tensor in one pass; see preprocess.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

// A uint8 picture: `channels` interleaved bytes a pixel, rows `stride` bytes apart (any sign).
struct Picture {
    const std::uint8_t *data;
    std::ptrdiff_t stride;
    int height, width, channels;
};

// The region that the picture fills in a float32 tensor (channels, height, width), contiguous.
struct Target {
    float *data;
    int channels, height, width;
    int top, left, region_height, region_width;
};

// Resizes `picture` to the region and writes table[channel][level] there, 256 levels a channel.
// Three channels are BGR in the picture and, where `rgb`, RGB in the tensor.
void preprocess(const Picture &picture, const Target &target, const float *table, bool rgb,
                int threads);

}  // namespace edgeseg

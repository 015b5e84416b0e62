// Label map -> colours on a frame in one pass; see overlay.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

// Label of the frame's pixel (y, x): data[rows[y] * stride + columns[x]]; both ascend.
struct Labels {
    const std::uint8_t *data;
    std::ptrdiff_t stride;
    int height, width;
    const std::int32_t *rows, *columns;
};

struct Look {
    const std::uint8_t *colours;  // BGRA of each of the 256 labels; alpha 255, or 0 of clear ones
    int weight;                   // of the colours, 0…256; the frame has the rest
    bool outline;                 // the rim of each region in its full colour
};

// A frame of `height` x `width` packed BGR pixels; rows of `frame` are `stride` bytes apart, rows
// of `out` follow each other. They may be the same memory.
struct Canvas {
    const std::uint8_t *frame;
    std::ptrdiff_t stride;
    std::uint8_t *out;
    int height, width;
};

// out = (frame * (256 - weight) + colour * weight + 128) / 256, or the frame where the label is
// clear.
void overlay(const Canvas &canvas, const Labels &labels, const Look &look, int threads);

// Pixels of each of the 256 labels on a frame of height x width.
void count_areas(const Labels &labels, int height, int width, std::int64_t *areas);

}  // namespace edgeseg

// Picture -> input tensor in one pass; see preprocess.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rows.hpp"

namespace edgeseg {

// A uint8 picture: `channels` interleaved bytes a pixel, rows `stride` bytes apart (any sign).
struct Picture {
    const std::uint8_t *data;
    std::ptrdiff_t stride;
    int height, width, channels;
};

// The region of a tensor that the picture fills; steps in values, so that any layout will do.
template <class Value>
struct Target {
    Value *data;
    std::ptrdiff_t channel_step, row_step, column_step;
    int channels, height, width;
};

// What a grey level becomes in a channel of the tensor: table[channel][level], 256 levels a channel.
// Where `lines` are not null, they give the same floats, a Line a channel, in less time than looking
// them up takes.
template <class Value>
struct Levels {
    const Value *table;
    const Line *lines = nullptr;
};

struct Manner {
    bool rgb;   // three channels, which are BGR in the picture, are RGB in the tensor
    bool area;  // resized to the mean of what a pixel covers, else bilinear
};

// Resizes `picture` to the target and writes there what its levels become. std::uint16_t stands for
// binary16.
template <class Value>
void preprocess(const Picture &picture, const Target<Value> &target, const Levels<Value> &levels,
                Manner manner, int threads);

}  // namespace edgeseg

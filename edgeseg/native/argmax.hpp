// Logits -> class ids; see argmax.cpp and upsample.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

// Class id of each of `pixels` positions, the planes of `channels` classes one after another: the
// first of the largest, as NumPy has it; of NaNs the first. std::int16_t stands for binary16.
template <class Logit>
void argmax(const Logit *logits, int channels, std::size_t pixels, std::uint8_t *out, int threads);

// A part of float32 logits (channels, height, width); planes and rows may lie apart.
struct Logits {
    const float *data;
    std::ptrdiff_t plane, stride;
    int channels, height, width;
};

// out (height x width, contiguous): the class of the bilinear interpolation of the logits.
void argmax_upsampled(const Logits &logits, int height, int width, std::uint8_t *out, int threads);

}  // namespace edgeseg

// Logits -> class ids; see argmax.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

// Class id of each of `pixels` positions, the planes of `channels` classes one after another: the
// first of the largest, as NumPy has it; of NaNs the first. std::int16_t stands for binary16.
template <class Logit>
void argmax(const Logit *logits, int channels, std::size_t pixels, std::uint8_t *out, int threads);

}  // namespace edgeseg

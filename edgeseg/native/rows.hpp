// What the kernels do along a row of pixels, the part that is worth vector instructions.
// rows.cpp is compiled once a level of instructions; dispatch.cpp picks a table at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

// Pixel x of a resized row is (row[first] * (256 - weight) + row[first + 1 pixel] * weight) / 256.
struct Tap {
    int first;             // element, not pixel
    std::uint32_t weights;  // weight << 16 | (256 - weight)
};

// Elements that blend_columns may read past the last one of `row`; they weigh nothing.
inline constexpr int kRowSlack = 8;

// What lay_over does to a row of bytes. Those at even and at odd places lie apart, the [0] and [1]
// here, so that words of two bytes need only be masked and shifted.
struct Veil {
    const std::uint16_t *keep[2], *shade[2];
};

struct Rows {
    const char *level;

    // out = above * (256 - weight) + below * weight - 32768, byte by byte.
    void (*blend_rows)(const std::uint8_t *above, const std::uint8_t *below, int weight,
                       std::int16_t *out, std::size_t count);
    // Pixels of a row of `blend_rows`, `channels` elements apart, as four words of 0…255 each; the
    // words past the picture's channels mean nothing.
    void (*blend_columns)(const std::int16_t *row, const Tap *taps, int channels, int count,
                          std::uint32_t *pixels);
    // First word of each pixel: grey of its BGR, ITU-R BT.601 in 15 bits as OpenCV's BGR2GRAY.
    void (*to_grey)(std::uint32_t *pixels, int count);

    // out = (frame * keep + shade) / 256, byte by byte; below 2^16 before the division.
    void (*lay_over)(const std::uint8_t *frame, Veil veil, std::size_t count, std::uint8_t *out);
    // rim[x] = row[x] where one of the eight neighbours has another label, else 0.
    void (*find_rim)(const std::uint8_t *above, const std::uint8_t *row,
                     const std::uint8_t *below, int width, std::uint8_t *rim);

    // out[i] = class of the largest of `channels` logits, `plane` elements apart.
    void (*argmax_float)(const float *logits, std::ptrdiff_t plane, int channels,
                         std::size_t count, std::uint8_t *out);
    void (*argmax_half)(const std::int16_t *logits, std::ptrdiff_t plane, int channels,
                        std::size_t count, std::uint8_t *out);  // IEEE 754 binary16
    void (*argmax_int8)(const std::int8_t *logits, std::ptrdiff_t plane, int channels,
                        std::size_t count, std::uint8_t *out);
    // The same of upper * (1 - weight) + lower * weight.
    void (*argmax_blended)(const float *upper, const float *lower, float weight,
                           std::ptrdiff_t plane, int channels, std::size_t count,
                           std::uint8_t *out);
};

namespace portable {
extern const Rows rows;
}
namespace avx2 {
extern const Rows rows;
}
namespace avx512 {
extern const Rows rows;
}
namespace neon {
extern const Rows rows;
}

}  // namespace edgeseg

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

// What a grey level becomes, near enough to its exact value that one rounding gives the same
// float: the first two are coarse, so that level * slope + offset is exact, and the others the rest.
struct Line {
    float slope, offset, slope_rest, offset_rest;
};

// Elements that blend_columns may read past the last one of `row`; they weigh nothing.
inline constexpr int kRowSlack = 8;
// Pixels that blend_columns takes at once: taps and planes have whole ones of these.
inline constexpr int kColumns = 8;

struct Rows {
    const char *level;

    // out = above * (256 - weight) + below * weight - 32768, byte by byte.
    void (*blend_rows)(const std::uint8_t *above, const std::uint8_t *below, int weight,
                       std::int16_t *out, std::size_t count);
    // Pixels of a row of `blend_rows`, `channels` elements apart, as three planes of 0…255 that are
    // `plane` apart; those past the picture's channels mean nothing.
    void (*blend_columns)(const std::int16_t *row, const Tap *taps, int channels, int count,
                          std::uint8_t *planes, std::ptrdiff_t plane);
    // sums += row * weight, byte by byte.
    void (*add_row)(const std::uint8_t *row, std::uint32_t weight, std::uint32_t *sums,
                    std::size_t count);
    // First plane: grey of the three, which are BGR; ITU-R BT.601 in 15 bits as OpenCV's BGR2GRAY.
    void (*to_grey)(std::uint8_t *planes, std::ptrdiff_t plane, int count);
    // out = (level * line.slope + line.offset) + (level * line.slope_rest + line.offset_rest).
    void (*scale)(const std::uint8_t *levels, Line line, int count, float *out);

    // out = (frame * (256 - weight) + colours * weight + 128) / 256 where the mask is 255, frame where
    // it is 0, byte by byte; weight 0…256. `out` may be `frame`.
    void (*lay_over)(const std::uint8_t *frame, const std::uint8_t *colours,
                     const std::uint8_t *mask, int weight, std::size_t count, std::uint8_t *out);
    // rim[x] = 255 where one of the eight neighbours of row[x] has another label, else 0.
    void (*find_rim)(const std::uint8_t *above, const std::uint8_t *row,
                     const std::uint8_t *below, int width, std::uint8_t *rim);

    // out[i] = class of the largest of `channels` logits, `plane` elements apart.
    void (*argmax_float)(const float *logits, std::ptrdiff_t plane, int channels,
                         std::size_t count, std::uint8_t *out);
    void (*argmax_half)(const std::int16_t *logits, std::ptrdiff_t plane, int channels,
                        std::size_t count, std::uint8_t *out);  // IEEE 754 binary16
    void (*argmax_int8)(const std::int8_t *logits, std::ptrdiff_t plane, int channels,
                        std::size_t count, std::uint8_t *out);

    // The vote of smooth.hpp along a row.
    void (*vote)(const std::uint8_t *labels, const std::uint8_t *limits, int step,
                 std::size_t count, std::uint8_t *shown, std::uint8_t *votes);
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

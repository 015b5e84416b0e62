// The row kernels of one level. CMakeLists.txt compiles this file for each level with that
// level's instructions: EDGESEG_LEVEL names it, EDGESEG_VECTOR is its vector in bytes.
//
// Vectors are GCC's and Clang's own (vector_size), so that one source serves every level; what is
// left to the compiler's vectoriser are loops it takes at sight. An inline function of the
// standard library would be compiled here with instructions that other CPUs lack, and the linker
// might keep this copy for all: none is used, and a test looks for such symbols.

#include "rows.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace edgeseg::EDGESEG_LEVEL {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pixels are packed from the lowest byte");

using Words4 = std::uint32_t __attribute__((vector_size(16)));
using Ints4 = std::int32_t __attribute__((vector_size(16)));
using Shorts4 = std::int16_t __attribute__((vector_size(8)));

template <class Vector>
Vector load(const void *from) {
    Vector value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

template <class Vector>
void store(void *to, Vector value) {
    __builtin_memcpy(to, &value, sizeof value);
}

void blend_rows(const std::uint8_t *__restrict above, const std::uint8_t *__restrict below,
                int weight, std::int16_t *__restrict out, std::size_t count) {
    const auto upper = static_cast<std::uint16_t>(256 - weight);
    const auto lower = static_cast<std::uint16_t>(weight);
    for (std::size_t i = 0; i < count; ++i)
        out[i] = static_cast<std::int16_t>((above[i] * upper + below[i] * lower) ^ 0x8000);
}

// Four sums of two products: left * (256 - weight) + right * weight, lane by lane.
inline Words4 blend_pixel(Shorts4 left, Shorts4 right, const Tap &tap) {
#if defined(__SSE2__)
    const __m128i pairs = _mm_unpacklo_epi16(_mm_set_epi64x(0, (long long)left),
                                             _mm_set_epi64x(0, (long long)right));
    return (Words4)_mm_madd_epi16(pairs, _mm_set1_epi32(tap.weights));
#else
    const auto weight = static_cast<std::int32_t>(tap.weights >> 16);
    return (Words4)(__builtin_convertvector(left, Ints4) * (256 - weight) +
                    __builtin_convertvector(right, Ints4) * weight);
#endif
}

void blend_columns(const std::int16_t *__restrict row, const Tap *__restrict taps, int channels,
                   int count, std::uint32_t *__restrict pixels) {
    constexpr std::uint32_t bias = 32768 * 256 + 32768;  // of the row, and to round
    for (int x = 0; x < count; ++x) {
        const std::int16_t *left = row + taps[x].first;
        const Words4 sum = blend_pixel(load<Shorts4>(left), load<Shorts4>(left + channels), taps[x]);
        store(pixels + 4 * x, (sum + bias) >> 16);
    }
}

void to_grey(std::uint32_t *pixels, int count) {
    for (int x = 0; x < count; ++x) {
        std::uint32_t *bgr = pixels + 4 * x;
        bgr[0] = (bgr[0] * 3735 + bgr[1] * 19235 + bgr[2] * 9798 + 16384) >> 15;
    }
}

void lay_over(const std::uint8_t *frame, const std::uint16_t *shade, std::uint16_t keep,
              std::size_t count, std::uint8_t *out) {
#pragma GCC ivdep  // frame and out are the same row or do not overlap
    for (std::size_t i = 0; i < count; ++i) {
        const auto blended = static_cast<std::uint8_t>(
            static_cast<std::uint16_t>(frame[i] * keep + shade[i]) >> 8);
        out[i] = shade[i] == kClear ? frame[i] : blended;
    }
}

void find_rim(const std::uint8_t *__restrict above, const std::uint8_t *__restrict row,
              const std::uint8_t *__restrict below, int width, std::uint8_t *__restrict rim) {
    const auto at = [=](int x, int left, int right) {
        const std::uint8_t label = row[x];
        const int others = (row[left] ^ label) | (row[right] ^ label) | (above[left] ^ label) |
                           (above[x] ^ label) | (above[right] ^ label) | (below[left] ^ label) |
                           (below[x] ^ label) | (below[right] ^ label);
        return static_cast<std::uint8_t>(others != 0 ? label : 0);
    };
    const int last = width - 1;
    rim[0] = at(0, 0, last < 1 ? 0 : 1);
    for (int x = 1; x < last; ++x) rim[x] = at(x, x - 1, x + 1);
    if (last > 0) rim[last] = at(last, last - 1, last);
}

// From here on a Value is a vector or, at the end of a row, a number: both know the operators.
template <class Lane>
struct Vector {
    typedef Lane type __attribute__((vector_size(EDGESEG_VECTOR)));
};

// NumPy takes the first NaN for the largest.
template <class Lane, class Value>
auto exceeds(Value value, Value best) {
    if constexpr (Lane(0.5f) != Lane(0))
        return (value > best) | ((value != value) & (best == best));
    else
        return value > best;
}

// Ids are as wide as the logits, so that one comparison chooses both. read(c, i): of class c.
template <class Lane, class Id, int Count, class Value, class Ids, class Read>
inline void argmax_at(int channels, std::size_t at, const Read &read, std::uint8_t *out) {
    constexpr std::size_t lanes = sizeof(Value) / sizeof(Lane);
    Value best[Count];
    Ids ids[Count];
    for (int k = 0; k < Count; ++k) {
        best[k] = read.template operator()<Value>(0, at + k * lanes);
        ids[k] = Ids{};
    }
    for (int c = 1; c < channels; ++c)
        for (int k = 0; k < Count; ++k) {
            const Value value = read.template operator()<Value>(c, at + k * lanes);
            const auto take = exceeds<Lane>(value, best[k]);
            best[k] = take ? value : best[k];
            ids[k] = take ? static_cast<Ids>(Ids{} + static_cast<Id>(c)) : ids[k];
        }
    Id flat[Count * lanes];
    __builtin_memcpy(flat, ids, sizeof flat);
    for (std::size_t i = 0; i < Count * lanes; ++i)
        out[at + i] = static_cast<std::uint8_t>(flat[i]);
}

template <class Lane, class Id, class Read>
inline void argmax_row(int channels, std::size_t count, const Read &read, std::uint8_t *out) {
    using Value = typename Vector<Lane>::type;
    using Ids = typename Vector<Id>::type;
    constexpr std::size_t lanes = sizeof(Value) / sizeof(Lane);
    std::size_t i = 0;
    for (; i + 4 * lanes <= count; i += 4 * lanes)
        argmax_at<Lane, Id, 4, Value, Ids>(channels, i, read, out);
    for (; i + lanes <= count; i += lanes)
        argmax_at<Lane, Id, 1, Value, Ids>(channels, i, read, out);
    for (; i < count; ++i) argmax_at<Lane, Id, 1, Lane, Id>(channels, i, read, out);
}

void argmax_float(const float *logits, std::ptrdiff_t plane, int channels, std::size_t count,
                  std::uint8_t *out) {
    argmax_row<float, std::uint32_t>(
        channels, count,
        [=]<class Value>(int c, std::size_t i) { return load<Value>(logits + c * plane + i); },
        out);
}

void argmax_int8(const std::int8_t *logits, std::ptrdiff_t plane, int channels, std::size_t count,
                 std::uint8_t *out) {
    argmax_row<std::int8_t, std::uint8_t>(
        channels, count,
        [=]<class Value>(int c, std::size_t i) { return load<Value>(logits + c * plane + i); },
        out);
}

// binary16 as integers of the same order: zeros alike, NaNs alike and on top.
void argmax_half(const std::int16_t *logits, std::ptrdiff_t plane, int channels,
                 std::size_t count, std::uint8_t *out) {
    const auto read = [=]<class Value>(int c, std::size_t i) {
        const Value bits = load<Value>(logits + c * plane + i);
        const Value largest = static_cast<Value>(Value{} + std::int16_t{0x7fff});
        const Value magnitude = static_cast<Value>(bits & largest);
        const Value ordered = bits < 0 ? static_cast<Value>(-magnitude) : magnitude;
        return static_cast<Value>(magnitude > 0x7c00 ? largest : ordered);
    };
    argmax_row<std::int16_t, std::uint16_t>(channels, count, read, out);
}

void argmax_blended(const float *upper, const float *lower, float weight, std::ptrdiff_t plane,
                    int channels, std::size_t count, std::uint8_t *out) {
    argmax_row<float, std::uint32_t>(
        channels, count,
        [=]<class Value>(int c, std::size_t i) {
            return static_cast<Value>(load<Value>(upper + c * plane + i) * (1 - weight) +
                                      load<Value>(lower + c * plane + i) * weight);
        },
        out);
}

}  // namespace

const Rows rows{
    .level = EDGESEG_LEVEL_NAME,
    .blend_rows = blend_rows,
    .blend_columns = blend_columns,
    .to_grey = to_grey,
    .lay_over = lay_over,
    .find_rim = find_rim,
    .argmax_float = argmax_float,
    .argmax_half = argmax_half,
    .argmax_int8 = argmax_int8,
    .argmax_blended = argmax_blended,
};

}  // namespace edgeseg::EDGESEG_LEVEL

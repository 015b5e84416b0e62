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

template <class Lane>
struct Vector {
    typedef Lane type __attribute__((vector_size(EDGESEG_VECTOR)));
};

template <class Value>
Value load(const void *from) {
    Value value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

template <class Value>
void store(void *to, Value value) {
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

void lay_over(const std::uint8_t *frame, Veil veil, std::size_t count, std::uint8_t *out) {
    using Words = Vector<std::uint16_t>::type;
    std::size_t i = 0;
    for (; i + sizeof(Words) <= count; i += sizeof(Words)) {
        const auto bytes = load<Words>(frame + i);
        const auto lay = [&](Words values, int odd) {
            return values * load<Words>(veil.keep[odd] + i / 2) +
                   load<Words>(veil.shade[odd] + i / 2);
        };
        store(out + i, (lay(bytes & 0xff, 0) >> 8) | (lay(bytes >> 8, 1) & 0xff00));
    }
    for (; i < count; ++i)
        out[i] = static_cast<std::uint8_t>(
            (frame[i] * veil.keep[i % 2][i / 2] + veil.shade[i % 2][i / 2]) >> 8);
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

// Pixels whose largest logits so far stay in the L1 cache while the classes pass by, a few at a
// time. All classes side by side would crowd each other out of the caches, in which planes a
// power of two apart share the same few places.
constexpr std::size_t kTile = 2048;
constexpr int kClasses = 4;

// Ids are as wide as the logits, so that one comparison chooses both.
template <class Lane, class Id>
struct Tile {
    alignas(64) Lane best[kTile];
    alignas(64) Id ids[kTile];
};

template <class Lane>
constexpr bool kFloating = Lane(0.5f) != Lane(0);

// NumPy takes the first NaN for the largest.
template <bool Nans, class Value>
inline auto exceeds(Value value, Value best) {
    if constexpr (Nans)
        return (value > best) | ((value != value) & (best == best));
    else
        return value > best;
}

// Lets `Count` classes from `first` on compete at `count` pixels, whole Values. Returns the sum of
// floating logits: NaN if one of them is (or, harmlessly, for some infinities). Adding is cheaper
// than looking for NaNs.
template <int Count, bool Nans, class Value, class Ids, class Lane, class Id, class Read>
inline Value compete(int first, std::size_t count, const Read &read, Tile<Lane, Id> &tile) {
    Value sums[2]{};
    for (std::size_t i = 0; i < count; i += sizeof(Value) / sizeof(Lane)) {
        auto best = load<Value>(tile.best + i);
        auto ids = load<Ids>(tile.ids + i);
        for (int k = 0; k < Count; ++k) {
            const Value value = read.template operator()<Value>(first + k, i);
            const auto take = exceeds<Nans>(value, best);
            best = take ? value : best;
            ids = take ? static_cast<Ids>(Ids{} + static_cast<Id>(first + k)) : ids;
            if constexpr (kFloating<Lane> && !Nans) sums[k % 2] += value;
        }
        store(tile.best + i, best);
        store(tile.ids + i, ids);
    }
    return static_cast<Value>(sums[0] + sums[1]);
}

// Fills `tile`. False where, without `Nans`, one may have taken part unnoticed.
template <bool Nans, class Value, class Ids, class Lane, class Id, class Read>
inline bool rank(int channels, std::size_t count, const Read &read, Tile<Lane, Id> &tile) {
    Value sum{};
    for (std::size_t i = 0; i < count; i += sizeof(Value) / sizeof(Lane)) {
        const Value value = read.template operator()<Value>(0, i);
        store(tile.best + i, value);
        store(tile.ids + i, Ids{});
        if constexpr (kFloating<Lane> && !Nans) sum += value;
    }
    int c = 1;
    for (; c + kClasses <= channels; c += kClasses)
        sum += compete<kClasses, Nans, Value, Ids>(c, count, read, tile);
    for (; c < channels; ++c) sum += compete<1, Nans, Value, Ids>(c, count, read, tile);
    Lane lanes[sizeof(Value) / sizeof(Lane)];
    store(lanes, sum);
    for (const Lane lane : lanes)
        if (lane != lane) return false;
    return true;
}

// read(c, i): the logit of class c at pixel i.
template <class Lane, class Id, class Value, class Ids, class Read>
inline void argmax_tile(int channels, std::size_t count, const Read &read, std::uint8_t *out) {
    Tile<Lane, Id> tile;
    if (!rank<false, Value, Ids>(channels, count, read, tile))
        rank<true, Value, Ids>(channels, count, read, tile);
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(tile.ids[i]);
}

template <class Lane, class Id, class Read>
inline void argmax_row(int channels, std::size_t count, const Read &read, std::uint8_t *out) {
    using Value = typename Vector<Lane>::type;
    using Ids = typename Vector<Id>::type;
    const std::size_t whole = count - count % (sizeof(Value) / sizeof(Lane));
    for (std::size_t start = 0; start < count;) {
        const auto part = [&read, start]<class Any>(int c, std::size_t i) {
            return read.template operator()<Any>(c, start + i);
        };
        const std::size_t end = start < whole ? whole : count;
        const std::size_t size = end - start < kTile ? end - start : kTile;
        if (start < whole)
            argmax_tile<Lane, Id, Value, Ids>(channels, size, part, out + start);
        else
            argmax_tile<Lane, Id, Lane, Id>(channels, size, part, out + start);
        start += size;
    }
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

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
using Words8 = std::uint32_t __attribute__((vector_size(32)));
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

#if defined(__AVX2__)
// The elements of `blend_rows` in whole vectors; returns how many.
std::size_t blend_vectors(const std::uint8_t *__restrict above, const std::uint8_t *__restrict below,
                          int weight, std::int16_t *__restrict out, std::size_t count) {
    // Weights of one byte each.
    if (weight == 0) below = above, weight = 128;
    if (weight == 256) above = below, weight = 128;
    const __m256i weights = _mm256_set1_epi16((short)(weight << 8 | (256 - weight)));
    const __m256i middle = _mm256_set1_epi8((char)128);
    std::size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        // Less 128 each, so that sums less 32768 come out by themselves.
        const __m256i first = _mm256_xor_si256(load<__m256i>(above + i), middle);
        const __m256i second = _mm256_xor_si256(load<__m256i>(below + i), middle);
        const __m256i low = _mm256_maddubs_epi16(weights, _mm256_unpacklo_epi8(first, second));
        const __m256i high = _mm256_maddubs_epi16(weights, _mm256_unpackhi_epi8(first, second));
        store(out + i, _mm256_permute2x128_si256(low, high, 0x20));
        store(out + i + 16, _mm256_permute2x128_si256(low, high, 0x31));
    }
    return i;
}
#else
std::size_t blend_vectors(const std::uint8_t *, const std::uint8_t *, int, std::int16_t *,
                          std::size_t) {
    return 0;  // the compiler finds them
}
#endif

void blend_rows(const std::uint8_t *__restrict above, const std::uint8_t *__restrict below,
                int weight, std::int16_t *__restrict out, std::size_t count) {
    const auto upper = static_cast<std::uint16_t>(256 - weight);
    const auto lower = static_cast<std::uint16_t>(weight);
    for (std::size_t i = blend_vectors(above, below, weight, out, count); i < count; ++i)
        out[i] = static_cast<std::int16_t>((above[i] * upper + below[i] * lower) ^ 0x8000);
}

// Sums of two products, left * (256 - weight) + right * weight, and what the row lacks: a word a
// channel, of which the upper half is the rounded value.
constexpr std::uint32_t kBias = 32768 * 256 + 32768;

#if defined(__AVX2__)
using Pixels = Words8;

class Blend {
public:
    explicit Blend(int channels) {
        for (int i = 0; i < 32; ++i)
            pairs_[i] = static_cast<char>(i % 2 + 2 * (i % 16 / 4 + i / 2 % 2 * channels));
    }

    // The pixels of the first and the fifth tap.
    Pixels operator()(const std::int16_t *row, const Tap *taps) const {
        const __m256i both = _mm256_set_m128i(load<__m128i>(row + taps[4].first),
                                              load<__m128i>(row + taps[0].first));
        const __m256i weights = _mm256_blend_epi32(_mm256_set1_epi32((int)taps[0].weights),
                                                   _mm256_set1_epi32((int)taps[4].weights), 0xf0);
        const __m256i pairs = _mm256_shuffle_epi8(both, load<__m256i>(pairs_));
        return (Pixels)_mm256_madd_epi16(pairs, weights) + kBias;
    }

private:
    char pairs_[32];
};
#else
using Pixels = Words4;

class Blend {
public:
    explicit Blend(int channels) : channels_(channels) {}

    Pixels operator()(const std::int16_t *row, const Tap *taps) const {
        const std::int16_t *left = row + taps[0].first;
        const auto first = load<Shorts4>(left), second = load<Shorts4>(left + channels_);
#if defined(__SSE2__)
        const __m128i pairs = _mm_unpacklo_epi16(_mm_set_epi64x(0, (long long)first),
                                                 _mm_set_epi64x(0, (long long)second));
        return (Pixels)_mm_madd_epi16(pairs, _mm_set1_epi32((int)taps[0].weights)) + kBias;
#else
        const auto weight = static_cast<std::int32_t>(taps[0].weights >> 16);
        return (Pixels)(__builtin_convertvector(first, Ints4) * (256 - weight) +
                        __builtin_convertvector(second, Ints4) * weight) + kBias;
#endif
    }

private:
    int channels_;
};
#endif

void blend_columns(const std::int16_t *__restrict row, const Tap *__restrict taps, int channels,
                   int count, std::uint8_t *__restrict planes, std::ptrdiff_t plane) {
    const Blend blend(channels);
    constexpr std::uint32_t upper = 0xffff0000;
    for (int x = 0; x < count; x += sizeof(Pixels) / 4) {
        const Tap *four = taps + x;
        const Pixels even = blend(row, four) >> 16 | (blend(row, four + 2) & upper);
        const Pixels odd = blend(row, four + 1) >> 16 | (blend(row, four + 3) & upper);
        const Pixels bytes = even | odd << 8;  // a word a channel, in it a byte a pixel
        for (int c = 0; c < 3; ++c)
            for (unsigned i = 0; i < sizeof(Pixels) / 16; ++i)
                store(planes + c * plane + x + 4 * i, bytes[4 * i + c]);
    }
}

void add_row(const std::uint8_t *__restrict row, std::uint32_t weight,
             std::uint32_t *__restrict sums, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) sums[i] += row[i] * weight;
}

void to_grey(std::uint8_t *planes, std::ptrdiff_t plane, int count) {
    for (int x = 0; x < count; ++x)
        planes[x] = static_cast<std::uint8_t>(
            (planes[x] * 3735 + planes[plane + x] * 19235 + planes[2 * plane + x] * 9798 + 16384) >>
            15);
}

void scale(const std::uint8_t *__restrict levels, Line line, int count, float *__restrict out) {
    for (int x = 0; x < count; ++x) {
        const float level = levels[x];
        out[x] = (level * line.slope + line.offset) + (level * line.slope_rest + line.offset_rest);
    }
}

// Where it shows: the colour, else the frame, which blends with itself to itself.
template <class Value>
Value masked(Value frame, Value colour, Value mask) {
    return static_cast<Value>(frame ^ ((frame ^ colour) & mask));
}

// Half and half, for which CPUs have an instruction that the compiler finds.
void lay_half(const std::uint8_t *frame, const std::uint8_t *colours, const std::uint8_t *mask,
              std::size_t count, std::uint8_t *out) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i)
        out[i] = static_cast<std::uint8_t>((frame[i] + masked(frame[i], colours[i], mask[i]) + 1) >> 1);
}

void lay_over(const std::uint8_t *frame, const std::uint8_t *colours, const std::uint8_t *mask,
              int weight, std::size_t count, std::uint8_t *out) {
    if (weight == 128) return lay_half(frame, colours, mask, count, out);
    using Words = Vector<std::uint16_t>::type;
    const auto over = static_cast<std::uint16_t>(weight), under = static_cast<std::uint16_t>(256 - weight);
    std::size_t i = 0;
    for (; i + sizeof(Words) <= count; i += sizeof(Words)) {
        const auto bytes = load<Words>(frame + i);
        const Words shown = masked(bytes, load<Words>(colours + i), load<Words>(mask + i));
        const Words even = (bytes & 0xff) * under + (shown & 0xff) * over + 128;
        const Words odd = (bytes >> 8) * under + (shown >> 8) * over + 128;
        store(out + i, (even >> 8) | (odd & 0xff00));
    }
    for (; i < count; ++i)
        out[i] = static_cast<std::uint8_t>(
            (frame[i] * under + masked(frame[i], colours[i], mask[i]) * over + 128) >> 8);
}

void find_rim(const std::uint8_t *__restrict above, const std::uint8_t *__restrict row,
              const std::uint8_t *__restrict below, int width, std::uint8_t *__restrict rim) {
    const auto at = [=](int x, int left, int right) {
        const std::uint8_t label = row[x];
        const int others = (row[left] ^ label) | (row[right] ^ label) | (above[left] ^ label) |
                           (above[x] ^ label) | (above[right] ^ label) | (below[left] ^ label) |
                           (below[x] ^ label) | (below[right] ^ label);
        return static_cast<std::uint8_t>(others != 0 ? 255 : 0);
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

void vote(const std::uint8_t *__restrict labels, const std::uint8_t *__restrict limits, int step,
          std::size_t count, std::uint8_t *__restrict shown, std::uint8_t *__restrict votes) {
    const auto most = static_cast<std::uint8_t>(255 - step), one = static_cast<std::uint8_t>(step);
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint8_t label = labels[i], old = shown[i];
        const std::uint8_t held = votes[i] < limits[i] ? votes[i] : limits[i];
        const std::uint8_t more = static_cast<std::uint8_t>((held < most ? held : most) + one);
        const std::uint8_t less = static_cast<std::uint8_t>((held > one ? held : one) - one);
        const std::uint8_t left = label == old ? more : less;
        shown[i] = left == 0 ? label : old;
        votes[i] = left == 0 ? std::uint8_t{128} : left;
    }
}

}  // namespace

const Rows rows{
    .level = EDGESEG_LEVEL_NAME,
    .blend_rows = blend_rows,
    .blend_columns = blend_columns,
    .add_row = add_row,
    .to_grey = to_grey,
    .scale = scale,
    .lay_over = lay_over,
    .find_rim = find_rim,
    .argmax_float = argmax_float,
    .argmax_half = argmax_half,
    .argmax_int8 = argmax_int8,
    .vote = vote,
};

}  // namespace edgeseg::EDGESEG_LEVEL

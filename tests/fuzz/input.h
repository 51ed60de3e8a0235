/*
 * input.h: for fuzz targets: the fuzzer's bytes, taken from the front.
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

struct input {
    const uint8_t *data;
    size_t left;
};

/* The next bytes as a number, those that are not there left out. */
static uint32_t take(struct input *in, uint32_t bytes)
{
    uint32_t value = 0;

    while (bytes-- > 0 && in->left > 0) {
        value = value << 8 | *in->data++;
        in->left--;
    }
    return value;
}

#endif

/*
 * Copying from images into an image, by several coroutines: for convert and dd.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TOOLS_IMG_CONVERT_H
#define TOOLS_IMG_CONVERT_H

#include "tools/img-common.h"

#define IMG_COPY_MAX_COROUTINES 16

typedef struct ImgCopy {
    /*
     * What is copied: the sources one after the other, each filled up with zeroes to whole sectors
     * but the last.
     */
    BlockBackend **src;
    const char *const *src_names;
    unsigned n_src;
    BlockBackend *target;
    const char *target_name;

    unsigned coroutines;        /* 1 to IMG_COPY_MAX_COROUTINES */
    bool out_of_order;          /* writes need not begin in the order of their offsets */
    int64_t min_sparse;         /* so many zero bytes become a hole; 0: all is written */
    bool compress;
    bool target_is_zero;        /* it reads as zeroes everywhere */
    bool target_has_backing;    /* what the source's own layer lacks comes from there */
    bool salvage;               /* what cannot be read is taken for zeroes */
    bool quiet;
    ImgRate rate;
} ImgCopy;

/* The length of what will be copied; -1 with @errp set. */
int64_t img_copy_length(const ImgCopy *copy, Error **errp);
/*
 * Copy, and flush the target. The target is at least as long. Progress is told to
 * img_progress_add(). Returns 0, or -1 with @errp set; "interrupted" after a signal.
 */
int img_copy_run(ImgCopy *copy, Error **errp);

#endif

/*
 * A visitor that frees what it walks. Generated qapi_free_X() use it; other code calls those.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_DEALLOC_VISITOR_H
#define QAPI_DEALLOC_VISITOR_H

#include "qapi/visitor.h"

/* Free with visit_free(). Walks may meet half-built values: NULL pointers are passed over. */
Visitor *qapi_dealloc_visitor_new(void);

#endif

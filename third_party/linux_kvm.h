#pragma once

// <linux/kvm.h>, to be included instead of it. In Debian 12's version the macro for flexible arrays
// puts an empty struct in front of them, which has no size in C but one byte in C++: structures grow,
// and with them the numbers of the ioctls that carry their size. Later versions of the header do what
// stands here.
#include <linux/stddef.h>

#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]

#include <linux/kvm.h>

static_assert(sizeof(kvm_irq_routing) == 8, "include third_party/linux_kvm.h before <linux/kvm.h>");
static_assert(sizeof(kvm_cpuid2) == 8, "layout fixed by the kernel");
static_assert(sizeof(kvm_msrs) == 8, "layout fixed by the kernel");

package main

import (
	"fmt"
	"sync"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is an instruction set. A panel row of 16 float32 lanes takes one register of AVX-512, two of AVX2.
type isa struct {
	name  string // prefix of function names
	wide  bool   // 512-bit registers and VPDPBUSD
	parts int    // registers per 16 lanes
}

var (
	avx2 = isa{"avx2", false, 2}
	vnni = isa{"vnni", true, 1}
)

func (i isa) reg() VecVirtual {
	if i.wide {
		return ZMM()
	}
	return YMM()
}

func (i isa) regs(n int) []VecVirtual {
	r := make([]VecVirtual, n)
	for j := range r {
		r[j] = i.reg()
	}
	return r
}

func (i isa) zero(r VecVirtual) {
	if i.wide {
		VPXORD(r, r, r)
	} else {
		VPXOR(r, r, r)
	}
}

func (i isa) and(a Op, b, to VecVirtual) {
	if i.wide {
		VPANDD(a, b, to)
	} else {
		VPAND(a, b, to)
	}
}

func (i isa) or(a Op, b, to VecVirtual) {
	if i.wide {
		VPORD(a, b, to)
	} else {
		VPOR(a, b, to)
	}
}

func (i isa) load(m Mem, to VecVirtual) {
	if i.wide {
		VMOVDQU64(m, to)
	} else {
		VMOVDQU(m, to)
	}
}

func (i isa) copy(from, to VecVirtual) {
	if i.wide {
		VMOVDQA64(from, to)
	} else {
		VMOVDQA(from, to)
	}
}

// bytes is the number of bytes of a register.
func (i isa) bytes() int { return 64 / i.parts }

func ptr(name string) Register { return Load(Param(name), GP64()) }

func mem(r Register, disp int) Mem { return Mem{Base: r, Disp: disp} }

// constant is a 64-byte constant of one repeated byte.
func constant(b byte) Mem {
	name := fmt.Sprintf("bytes%02x", b)
	if m, ok := constants()[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for j := range 8 {
		v := uint64(b) * 0x0101010101010101
		DATA(8*j, U64(v))
	}
	constants()[name] = m
	return m
}

// ones16 is a 64-byte constant of int16 ones.
func ones16() Mem {
	if m, ok := constants()["ones16"]; ok {
		return m
	}
	m := GLOBL("ones16", RODATA|NOPTR)
	for j := range 8 {
		DATA(8*j, U64(0x0001000100010001))
	}
	constants()["ones16"] = m
	return m
}

// constants are those of the file that is being written.
var constants = sync.OnceValue(func() map[string]Mem { return map[string]Mem{} })

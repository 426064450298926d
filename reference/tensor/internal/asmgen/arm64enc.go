package main

import "fmt"

// inst is an instruction of Arm's Advanced SIMD: its encoding, from the instruction descriptions of the Arm Architecture
// Reference Manual (DDI 0487), and its assembly text as disassemblers write it.
type inst struct {
	bits uint32
	text string
}

// three is an instruction with two sources of one shape.
func three(bits uint32, text string, d, n, m v) inst {
	return inst{bits | uint32(m)<<16 | uint32(n)<<5 | uint32(d), fmt.Sprintf(text, d, n, m)}
}

func and(d, n, m v) inst    { return three(0x4e201c00, "and v%d.16b, v%d.16b, v%d.16b", d, n, m) }
func bic(d, n, m v) inst    { return three(0x4e601c00, "bic v%d.16b, v%d.16b, v%d.16b", d, n, m) }
func orr(d, n, m v) inst    { return three(0x4ea01c00, "orr v%d.16b, v%d.16b, v%d.16b", d, n, m) }
func eor(d, n, m v) inst    { return three(0x6e201c00, "eor v%d.16b, v%d.16b, v%d.16b", d, n, m) }
func bit(d, n, m v) inst    { return three(0x6ea01c00, "bit v%d.16b, v%d.16b, v%d.16b", d, n, m) } // bits of n where m is set
func add(d, n, m v) inst    { return three(0x4ea08400, "add v%d.4s, v%d.4s, v%d.4s", d, n, m) }
func fadd(d, n, m v) inst   { return three(0x4e20d400, "fadd v%d.4s, v%d.4s, v%d.4s", d, n, m) }
func fsub(d, n, m v) inst   { return three(0x4ea0d400, "fsub v%d.4s, v%d.4s, v%d.4s", d, n, m) }
func fmul(d, n, m v) inst   { return three(0x6e20dc00, "fmul v%d.4s, v%d.4s, v%d.4s", d, n, m) }
func fdiv(d, n, m v) inst   { return three(0x6e20fc00, "fdiv v%d.4s, v%d.4s, v%d.4s", d, n, m) }
func fmax(d, n, m v) inst   { return three(0x4e20f400, "fmax v%d.4s, v%d.4s, v%d.4s", d, n, m) }   // NaN if either is
func fmaxnm(d, n, m v) inst { return three(0x4e20c400, "fmaxnm v%d.4s, v%d.4s, v%d.4s", d, n, m) } // the other if one is NaN
func fcmgt(d, n, m v) inst  { return three(0x6ea0e400, "fcmgt v%d.4s, v%d.4s, v%d.4s", d, n, m) }  // ones where n > m
func fmla(d, n, m v) inst   { return three(0x4e20cc00, "fmla v%d.4s, v%d.4s, v%d.4s", d, n, m) }   // d += n·m, fused
func fadd2d(d, n, m v) inst { return three(0x4e60d400, "fadd v%d.2d, v%d.2d, v%d.2d", d, n, m) }   // float64
func trn1(d, n, m v) inst   { return three(0x4e802800, "trn1 v%d.4s, v%d.4s, v%d.4s", d, n, m) }   // n0 m0 n2 m2
func trn2(d, n, m v) inst   { return three(0x4e806800, "trn2 v%d.4s, v%d.4s, v%d.4s", d, n, m) }   // n1 m1 n3 m3
func zip1d(d, n, m v) inst  { return three(0x4ec03800, "zip1 v%d.2d, v%d.2d, v%d.2d", d, n, m) }   // low halves
func zip2d(d, n, m v) inst  { return three(0x4ec07800, "zip2 v%d.2d, v%d.2d, v%d.2d", d, n, m) }   // high halves

// two is an instruction with one source.
func two(bits uint32, text string, d, n v) inst {
	return inst{bits | uint32(n)<<5 | uint32(d), fmt.Sprintf(text, d, n)}
}

func scvtf(d, n v) inst   { return two(0x4e21d800, "scvtf v%d.4s, v%d.4s", d, n) }
func fcvtns(d, n v) inst  { return two(0x4e21a800, "fcvtns v%d.4s, v%d.4s", d, n) } // to nearest even
func fabs(d, n v) inst    { return two(0x4ea0f800, "fabs v%d.4s, v%d.4s", d, n) }
func fneg(d, n v) inst    { return two(0x6ea0f800, "fneg v%d.4s, v%d.4s", d, n) }
func fsqrt(d, n v) inst   { return two(0x6ea1f800, "fsqrt v%d.4s, v%d.4s", d, n) }
func rev64(d, n v) inst   { return two(0x4ea00800, "rev64 v%d.4s, v%d.4s", d, n) } // neighbours change places
func neg(d, n v) inst     { return two(0x6ea0b800, "neg v%d.4s, v%d.4s", d, n) }
func fcvtl(d, n v) inst   { return two(0x0e217800, "fcvtl v%d.4s, v%d.4h", d, n) }  // float16 to float32, low half
func fcvtl2(d, n v) inst  { return two(0x4e217800, "fcvtl2 v%d.4s, v%d.8h", d, n) } // high half
func fcvtn(d, n v) inst   { return two(0x0e216800, "fcvtn v%d.4h, v%d.4s", d, n) }  // float32 to float16
func fcvtn2(d, n v) inst  { return two(0x4e216800, "fcvtn2 v%d.8h, v%d.4s", d, n) }
func fcvtld(d, n v) inst  { return two(0x0e617800, "fcvtl v%d.2d, v%d.2s", d, n) } // float32 to float64
func fcvtld2(d, n v) inst { return two(0x4e617800, "fcvtl2 v%d.2d, v%d.4s", d, n) }
func sqxtn4(d, n v) inst  { return two(0x0e614800, "sqxtn v%d.4h, v%d.4s", d, n) }
func sqxtn24(d, n v) inst { return two(0x4e614800, "sqxtn2 v%d.8h, v%d.4s", d, n) }
func sqxtn8(d, n v) inst  { return two(0x0e214800, "sqxtn v%d.8b, v%d.8h", d, n) }
func sqxtn28(d, n v) inst { return two(0x4e214800, "sqxtn2 v%d.16b, v%d.8h", d, n) }

// extend widens unsigned or signed bytes or halves.
func uxtl8(d, n v) inst  { return two(0x2f08a400, "uxtl v%d.8h, v%d.8b", d, n) }
func uxtl28(d, n v) inst { return two(0x6f08a400, "uxtl2 v%d.8h, v%d.16b", d, n) }
func sxtl8(d, n v) inst  { return two(0x0f08a400, "sxtl v%d.8h, v%d.8b", d, n) }
func sxtl28(d, n v) inst { return two(0x4f08a400, "sxtl2 v%d.8h, v%d.16b", d, n) }
func sxtl4(d, n v) inst  { return two(0x0f10a400, "sxtl v%d.4s, v%d.4h", d, n) }
func sxtl24(d, n v) inst { return two(0x4f10a400, "sxtl2 v%d.4s, v%d.8h", d, n) }

// shll16 turns bfloat16 into float32: it widens and shifts by the old width.
func shll16(d, n v) inst  { return two(0x2e613800, "shll v%d.4s, v%d.4h, #16", d, n) }
func shll216(d, n v) inst { return two(0x6e613800, "shll2 v%d.4s, v%d.8h, #16", d, n) }

// These fold the four lanes of n into lane 0 of d.
func fmaxv(d, n v) inst   { return two(0x6e30f800, "fmaxv s%d, v%d.4s", d, n) }
func fmaxnmv(d, n v) inst { return two(0x6e30c800, "fmaxnmv s%d, v%d.4s", d, n) }
func addv(d, n v) inst    { return two(0x4eb1b800, "addv s%d, v%d.4s", d, n) }

// byElement multiplies four lanes by lane i of m, whose number goes to bits 21 (low) and 11.
func byElement(one inst, i int) inst {
	return inst{one.bits | uint32(i&1)<<21 | uint32(i>>1)<<11, fmt.Sprintf("%s[%d]", one.text, i)}
}

func fmlaE(d, n, m v, i int) inst { // d += n·m[i], fused
	return byElement(three(0x4f801000, "fmla v%d.4s, v%d.4s, v%d.s", d, n, m), i)
}

func fmlsE(d, n, m v, i int) inst { // d -= n·m[i], fused
	return byElement(three(0x4f805000, "fmls v%d.4s, v%d.4s, v%d.s", d, n, m), i)
}

func fmulE(d, n, m v, i int) inst {
	return byElement(three(0x4f809000, "fmul v%d.4s, v%d.4s, v%d.s", d, n, m), i)
}

// sdotE adds to each lane the dot product of its four signed bytes of n and group i of m.
func sdotE(d, n, m v, i int) inst {
	return byElement(three(0x4f80e000, "sdot v%d.4s, v%d.16b, v%d.4b", d, n, m), i)
}

// Shifts carry their distance beside the width of a lane.
func shl8(d, n v, by int) inst {
	return shift(two(0x4f005400, "shl v%d.16b, v%d.16b", d, n), 8+by, by)
}

func shl32(d, n v, by int) inst { return shift(two(0x4f005400, "shl v%d.4s, v%d.4s", d, n), 32+by, by) }

func ushr8(d, n v, by int) inst {
	return shift(two(0x6f000400, "ushr v%d.16b, v%d.16b", d, n), 16-by, by)
}

func shift(i inst, field, by int) inst {
	return inst{i.bits | uint32(field)<<16, fmt.Sprintf("%s, #%d", i.text, by)}
}

// movi fills a register with a byte.
func movi(d v, b byte) inst {
	return inst{0x4f00e400 | uint32(b>>5)<<16 | uint32(b&31)<<5 | uint32(d), fmt.Sprintf("movi v%d.16b, #0x%x", d, b)}
}

// dup copies lane i of n to all lanes.
func dup(d, n v, i int) inst {
	return inst{0x4e040400 | uint32(i)<<19 | uint32(n)<<5 | uint32(d), fmt.Sprintf("dup v%d.4s, v%d.s[%d]", d, n, i)}
}

// dupR copies the low word of a general register to all lanes.
func dupR(d v, n r) inst {
	return inst{0x4e040c00 | uint32(n)<<5 | uint32(d), fmt.Sprintf("dup v%d.4s, w%d", d, int(n))}
}

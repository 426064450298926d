package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// encodings has the words of the GNU assembler (binutils 2.40) for the text beside them.
var encodings = []struct {
	got  inst
	want uint32
	text string
}{
	{and(29, 30, 31), 0x4e3f1fdd, "and v29.16b, v30.16b, v31.16b"},
	{bic(1, 2, 3), 0x4e631c41, "bic v1.16b, v2.16b, v3.16b"},
	{orr(29, 3, 17), 0x4eb11c7d, "orr v29.16b, v3.16b, v17.16b"},
	{eor(4, 30, 9), 0x6e291fc4, "eor v4.16b, v30.16b, v9.16b"},
	{bit(31, 0, 15), 0x6eaf1c1f, "bit v31.16b, v0.16b, v15.16b"},
	{add(5, 6, 7), 0x4ea784c5, "add v5.4s, v6.4s, v7.4s"},
	{fadd(29, 30, 31), 0x4e3fd7dd, "fadd v29.4s, v30.4s, v31.4s"},
	{fsub(1, 2, 3), 0x4ea3d441, "fsub v1.4s, v2.4s, v3.4s"},
	{fmul(16, 8, 24), 0x6e38dd10, "fmul v16.4s, v8.4s, v24.4s"},
	{fdiv(3, 2, 1), 0x6e21fc43, "fdiv v3.4s, v2.4s, v1.4s"},
	{fmax(9, 10, 11), 0x4e2bf549, "fmax v9.4s, v10.4s, v11.4s"},
	{fmaxnm(9, 10, 11), 0x4e2bc549, "fmaxnm v9.4s, v10.4s, v11.4s"},
	{fcmgt(12, 13, 14), 0x6eaee5ac, "fcmgt v12.4s, v13.4s, v14.4s"},
	{fmla(29, 30, 31), 0x4e3fcfdd, "fmla v29.4s, v30.4s, v31.4s"},
	{fadd2d(1, 2, 3), 0x4e63d441, "fadd v1.2d, v2.2d, v3.2d"},
	{trn1(1, 2, 3), 0x4e832841, "trn1 v1.4s, v2.4s, v3.4s"},
	{trn2(1, 2, 3), 0x4e836841, "trn2 v1.4s, v2.4s, v3.4s"},
	{zip1d(1, 2, 3), 0x4ec33841, "zip1 v1.2d, v2.2d, v3.2d"},
	{zip2d(1, 2, 3), 0x4ec37841, "zip2 v1.2d, v2.2d, v3.2d"},
	{scvtf(29, 30), 0x4e21dbdd, "scvtf v29.4s, v30.4s"},
	{fcvtns(1, 2), 0x4e21a841, "fcvtns v1.4s, v2.4s"},
	{fabs(1, 2), 0x4ea0f841, "fabs v1.4s, v2.4s"},
	{fneg(1, 2), 0x6ea0f841, "fneg v1.4s, v2.4s"},
	{fsqrt(1, 2), 0x6ea1f841, "fsqrt v1.4s, v2.4s"},
	{rev64(29, 30), 0x4ea00bdd, "rev64 v29.4s, v30.4s"},
	{neg(1, 2), 0x6ea0b841, "neg v1.4s, v2.4s"},
	{fcvtl(29, 30), 0x0e217bdd, "fcvtl v29.4s, v30.4h"},
	{fcvtl2(29, 30), 0x4e217bdd, "fcvtl2 v29.4s, v30.8h"},
	{fcvtn(1, 2), 0x0e216841, "fcvtn v1.4h, v2.4s"},
	{fcvtn2(1, 2), 0x4e216841, "fcvtn2 v1.8h, v2.4s"},
	{fcvtld(1, 2), 0x0e617841, "fcvtl v1.2d, v2.2s"},
	{fcvtld2(1, 2), 0x4e617841, "fcvtl2 v1.2d, v2.4s"},
	{sqxtn4(1, 2), 0x0e614841, "sqxtn v1.4h, v2.4s"},
	{sqxtn24(1, 2), 0x4e614841, "sqxtn2 v1.8h, v2.4s"},
	{sqxtn8(1, 2), 0x0e214841, "sqxtn v1.8b, v2.8h"},
	{sqxtn28(1, 2), 0x4e214841, "sqxtn2 v1.16b, v2.8h"},
	{uxtl8(1, 2), 0x2f08a441, "uxtl v1.8h, v2.8b"},
	{uxtl28(1, 2), 0x6f08a441, "uxtl2 v1.8h, v2.16b"},
	{sxtl8(1, 2), 0x0f08a441, "sxtl v1.8h, v2.8b"},
	{sxtl28(1, 2), 0x4f08a441, "sxtl2 v1.8h, v2.16b"},
	{sxtl4(1, 2), 0x0f10a441, "sxtl v1.4s, v2.4h"},
	{sxtl24(1, 2), 0x4f10a441, "sxtl2 v1.4s, v2.8h"},
	{shll16(1, 2), 0x2e613841, "shll v1.4s, v2.4h, #16"},
	{shll216(1, 2), 0x6e613841, "shll2 v1.4s, v2.8h, #16"},
	{fmaxv(1, 2), 0x6e30f841, "fmaxv s1, v2.4s"},
	{fmaxnmv(1, 2), 0x6e30c841, "fmaxnmv s1, v2.4s"},
	{addv(1, 2), 0x4eb1b841, "addv s1, v2.4s"},
	{fmlaE(29, 30, 31, 0), 0x4f9f13dd, "fmla v29.4s, v30.4s, v31.s[0]"},
	{fmlaE(1, 2, 3, 1), 0x4fa31041, "fmla v1.4s, v2.4s, v3.s[1]"},
	{fmlsE(1, 2, 3, 2), 0x4f835841, "fmls v1.4s, v2.4s, v3.s[2]"},
	{fmulE(1, 2, 19, 3), 0x4fb39841, "fmul v1.4s, v2.4s, v19.s[3]"},
	{sdotE(0, 16, 31, 0), 0x4f9fe200, "sdot v0.4s, v16.16b, v31.4b[0]"},
	{sdotE(29, 1, 2, 1), 0x4fa2e03d, "sdot v29.4s, v1.16b, v2.4b[1]"},
	{sdotE(3, 4, 5, 2), 0x4f85e883, "sdot v3.4s, v4.16b, v5.4b[2]"},
	{sdotE(6, 7, 24, 3), 0x4fb8e8e6, "sdot v6.4s, v7.16b, v24.4b[3]"},
	{shl8(1, 2, 1), 0x4f095441, "shl v1.16b, v2.16b, #1"},
	{shl8(1, 2, 7), 0x4f0f5441, "shl v1.16b, v2.16b, #7"},
	{shl32(1, 2, 23), 0x4f375441, "shl v1.4s, v2.4s, #23"},
	{ushr8(1, 2, 1), 0x6f0f0441, "ushr v1.16b, v2.16b, #1"},
	{ushr8(31, 30, 4), 0x6f0c07df, "ushr v31.16b, v30.16b, #4"},
	{movi(0, 0x0), 0x4f00e400, "movi v0.16b, #0x0"},
	{movi(9, 0x80), 0x4f04e409, "movi v9.16b, #0x80"},
	{movi(30, 0x3f), 0x4f01e7fe, "movi v30.16b, #0x3f"},
	{dup(1, 2, 0), 0x4e040441, "dup v1.4s, v2.s[0]"},
	{dup(30, 31, 3), 0x4e1c07fe, "dup v30.4s, v31.s[3]"},
	{dupR(1, 25), 0x4e040f21, "dup v1.4s, w25"},
}

func TestEncodings(t *testing.T) {
	for _, tc := range encodings {
		if tc.got != (inst{tc.want, tc.text}) {
			t.Errorf("got %08x %s, want %08x %s", tc.got.bits, tc.got.text, tc.want, tc.text)
		}
	}
}

// TestDisassembly: a disassembler reads every word that was generated as the comment beside it.
func TestDisassembly(t *testing.T) {
	objdump, err := exec.LookPath("aarch64-linux-gnu-objdump")
	if err != nil {
		t.Skip("aarch64-linux-gnu-objdump is missing (Debian: binutils-aarch64-linux-gnu)")
	}
	texts := map[uint32]string{}
	var words []byte
	for _, a := range []*arm64{neonTiles(), neonPanels()} {
		for _, m := range regexp.MustCompile(`WORD \$0x(\w+) // (.*)`).FindAllStringSubmatch(a.text.String(), -1) {
			var w uint32
			fmt.Sscanf(m[1], "%x", &w)
			if texts[w] == "" {
				words = binary.LittleEndian.AppendUint32(words, w)
			}
			texts[w] = m[2]
		}
	}
	file := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(file, words, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", "aarch64", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, line := range strings.Split(string(out), "\n") {
		part := strings.SplitN(line, "\t", 3)
		if len(part) < 3 {
			continue
		}
		var w uint32
		fmt.Sscanf(part[1], "%x", &w)
		if got := strings.ReplaceAll(strings.TrimSpace(part[2]), "\t", " "); got != texts[w] {
			t.Errorf("%08x is %q, want %q", w, got, texts[w])
		}
		seen++
	}
	if seen != len(texts) || seen < 1000 {
		t.Errorf("%d of %d words read", seen, len(texts))
	}
}

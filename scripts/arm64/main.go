// Command arm64 shows that what is deterministic on amd64 is the same, bit for
// bit, on arm64. It cross-builds for linux/arm64 and runs under qemu-user, or
// natively where this machine is an arm64 one and there is nothing to compare.
//
//	go run ./scripts/arm64                  # tests and random streams
//	go run ./scripts/arm64 -suite NAME      # also a modelled run of a suite
//	go run ./scripts/arm64 -suite NAME -- --site pocket --repeat 2
//
// It compares a digest over a million draws of every transform of internal/rng
// (their tests pin only a few), and one over the logits of a shipped model, by
// plain and by fused kernels, in four number formats. It runs the tests of the
// deterministic packages, those of the kernels on two processors, and with
// -suite compares requests.arrow of two runs byte for byte. As root it installs
// qemu-user where it is missing; otherwise it says so and passes.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// packages hold what must not depend on the machine.
const packages = "./internal/... ./hardware/world ./hardware/radio ./hardware/city ./hardware/costmodel ./harness/record ./harness/results ./harness/pipeline ./suites ./workloads/... ./reference/..."

// vector packages have kernels that ask for Armv8.2's dot product, and other ones for processors without it.
const vector = "./reference/tensor ./reference/panel"

var errSkip = errors.New("skipped")

func main() {
	suite := flag.String("suite", "", "also compare a modelled run of this suite; flags for it come after --")
	tests := flag.String("tests", packages, "packages to test, separated by blanks")
	digest := flag.Bool("digest", false, "print the digests of random streams and logits, and stop")
	flag.Parse()
	if *digest {
		printDigest(os.Stdout)
		if err := printLogits(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "arm64:", err)
			os.Exit(1)
		}
		return
	}
	switch err := run(*suite, strings.Fields(*tests), flag.Args()); {
	case errors.Is(err, errSkip):
		fmt.Println(err)
	case err != nil:
		fmt.Fprintln(os.Stderr, "arm64:", err)
		os.Exit(1)
	}
}

func run(suite string, tests, args []string) error {
	qemu, err := emulator()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "arm64-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	fmt.Println("== random streams and logits")
	failed := streams(qemu, scratch)
	if suite != "" {
		fmt.Println("== modelled run of", suite)
		failed = errors.Join(failed, modelled(qemu, scratch, append([]string{suite}, args...)))
	}
	fmt.Println("== tests")
	failed = errors.Join(failed, test(qemu, "max", tests))
	fmt.Println("== tests without the dot product (Cortex-A53)")
	return errors.Join(failed, test(qemu, "cortex-a53", strings.Fields(vector)))
}

// test runs the tests of packages on an emulated processor.
func test(qemu, cpu string, packages []string) error {
	cmd := arm(exec.Command("go", append([]string{"test", "-timeout", "30m", "-exec", qemu + " -cpu " + cpu}, packages...)...))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// emulator finds qemu-user, and installs it if it may.
func emulator() (string, error) {
	if runtime.GOARCH == "arm64" {
		return "", fmt.Errorf("%w: this machine is arm64; run go test ./... here and compare with an amd64 one", errSkip)
	}
	for _, name := range []string{"qemu-aarch64", "qemu-aarch64-static"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return "", fmt.Errorf("%w: qemu-aarch64 is missing; install qemu-user, or run this as root on Debian or Ubuntu", errSkip)
	}
	if out, err := exec.Command("apt-get", "install", "-y", "--no-install-recommends", "qemu-user").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: apt-get install qemu-user: %v: %s", errSkip, err, lastLine(out))
	}
	return exec.LookPath("qemu-aarch64")
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// arm makes a go command build for linux/arm64.
func arm(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	return cmd
}

func output(cmd *exec.Cmd) ([]byte, error) {
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return out, nil
}

// streams compares this program's digest with that of its arm64 build.
func streams(qemu, scratch string) error {
	program := filepath.Join(scratch, "self")
	if _, err := output(arm(exec.Command("go", "build", "-o", program, "./scripts/arm64"))); err != nil {
		return err
	}
	theirs, err := output(exec.Command(qemu, program, "-digest"))
	if err != nil {
		return err
	}
	var here bytes.Buffer
	printDigest(&here)
	if err := printLogits(&here); err != nil {
		return err
	}
	ours := here.Bytes()
	fmt.Printf("%s", theirs)
	if len(tensor.Kernels()) == 1 {
		fmt.Println("skipped: this processor has no fused kernels to compare with")
		ours, theirs = withoutFused(ours), withoutFused(theirs)
	}
	if !bytes.Equal(ours, theirs) {
		return fmt.Errorf("random streams or logits differ; %s has:\n%s", runtime.GOARCH, ours)
	}
	return nil
}

func withoutFused(text []byte) []byte {
	return regexp.MustCompile(`(?m)^.*, fused, .*\n`).ReplaceAll(text, nil)
}

// printDigest hashes a million draws of each transform.
func printDigest(w io.Writer) {
	for _, tc := range []struct {
		name string
		draw func(r rng.Source) float64
	}{
		{"uniform", rng.Float64}, {"exponential", rng.Exp}, {"normal", rng.Normal},
		{"lognormal", func(r rng.Source) float64 { return rng.LogNormal(r, 1, 0.7) }},
		{"weibull", func(r rng.Source) float64 { return rng.Weibull(r, 0.42) }},
		{"gamma small", func(r rng.Source) float64 { return rng.Gamma(r, 0.231) }},
		{"gamma large", func(r rng.Source) float64 { return rng.Gamma(r, 7.5) }},
	} {
		const n = 1_000_000
		r, h := rng.Stream(1, "digest", tc.name), sha256.New()
		var b [8]byte
		for range n {
			binary.LittleEndian.PutUint64(b[:], math.Float64bits(tc.draw(r)))
			h.Write(b[:])
		}
		fmt.Fprintf(w, "%-12s %x\n", tc.name, h.Sum(nil)[:12])
	}
}

// printLogits hashes what a model says in a prompt and five greedy tokens, by the slowest and the fastest kernel.
func printLogits(w io.Writer) error {
	const name = "mei-nano"
	data, err := models.Bytes(name)
	if err != nil {
		return err
	}
	l, err := models.Read(data, llm.ReadOptions{})
	if err != nil {
		return err
	}
	ids := l.Tokenizer.EncodePrompt("Turn on the kitchen light and wake me at seven.")
	kernels := tensor.Kernels()
	for _, typ := range []quant.Type{quant.F32, quant.F16, quant.Q8_0, quant.Q4_0} {
		m, err := l.Model.As(typ)
		if err == nil {
			err = m.Pack(1)
		}
		if err != nil {
			return fmt.Errorf("%s as %v: %w", name, typ, err)
		}
		for i, family := range []string{"plain", "fused"} {
			h := sha256.New()
			if err := hashLogits(h, m, kernels[i*(len(kernels)-1)], ids); err != nil {
				return err
			}
			fmt.Fprintf(w, "%s, %s, %v: %x\n", name, family, typ, h.Sum(nil)[:12])
		}
	}
	return nil
}

func hashLogits(h io.Writer, m *llm.Model, kernel string, ids []int32) error {
	pool, err := tensor.NewPoolOn(kernel, 2)
	if err != nil {
		return err
	}
	defer pool.Close()
	c, err := m.NewCache(0, m.Layers, len(ids)+5)
	if err != nil {
		return err
	}
	seqs := []llm.Seq{{IDs: ids, Cache: c, Want: llm.AllLogits}}
	work := m.NewWorkOn(pool)
	defer work.Close()
	for range 6 {
		if err := work.Forward(0, m.Layers, seqs); err != nil {
			return err
		}
		out := seqs[0].Out
		if err := binary.Write(h, binary.LittleEndian, out); err != nil {
			return err
		}
		last := out[len(out)-m.Vocab:]
		best := 0
		for i, v := range last {
			if v > last[best] {
				best = i
			}
		}
		seqs[0].IDs = []int32{int32(best)}
	}
	return nil
}

// modelled runs a suite on both machines and compares the rows.
func modelled(qemu, scratch string, args []string) error {
	folder := func(name string) string { return filepath.Join(scratch, name) }
	here, there := folder("meibench-here"), folder("meibench-arm64")
	if _, err := output(exec.Command("go", "build", "-o", here, "./cmd/meibench")); err != nil {
		return err
	}
	if _, err := output(arm(exec.Command("go", "build", "-o", there, "./cmd/meibench"))); err != nil {
		return err
	}
	args = append([]string{"run", "--mode", "modelled", "--no-report", "--quiet"}, args...)
	if _, err := output(exec.Command(here, append(args, "--out", folder("a"))...)); err != nil {
		return err
	}
	if _, err := output(exec.Command(qemu, append(append([]string{there}, args...), "--out", folder("b"))...)); err != nil {
		return err
	}
	a, err := os.ReadFile(filepath.Join(folder("a"), "requests.arrow"))
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(folder("b"), "requests.arrow"))
	if err != nil {
		return err
	}
	if !bytes.Equal(a, b) {
		return fmt.Errorf("requests.arrow differs: %d bytes with SHA-256 %x here, %d with %x on arm64", len(a), sha256.Sum256(a), len(b), sha256.Sum256(b))
	}
	fmt.Printf("requests.arrow: %d bytes, equal, SHA-256 %x\n", len(a), sha256.Sum256(a))
	return nil
}

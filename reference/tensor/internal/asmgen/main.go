// Command asmgen writes the assembly of packages tensor and panel: with avo for amd64, as text for arm64.
//
//	go run . -file panels -out ../../../panel/panels_amd64.s -stubs ../../../panel/panels_amd64.go -pkg panel
//	go run . -neon panels -dir ../../../panel
//
// It lives in its own module: users of meibench build what it wrote, never the generator. One function here is one
// family of kernels; what differs between instruction sets and number formats is data (isa, format).
package main

import (
	"flag"
	"log"
	"path/filepath"

	"github.com/mmcloughlin/avo/build"
)

func main() {
	file := flag.String("file", "", "what to write for amd64: panels or tiles")
	neon := flag.String("neon", "", "what to write for arm64: panels or tiles")
	dir := flag.String("dir", ".", "folder of the files for arm64")
	flag.Parse()
	if *neon != "" {
		var a *arm64
		switch *neon {
		case "tiles":
			a = neonTiles()
		case "panels":
			a = neonPanels()
		default:
			log.Fatalf("file %q for arm64: want panels or tiles", *neon)
		}
		name := filepath.Join(*dir, *neon+"_arm64")
		if err := a.write(name+".s", name+".go"); err != nil {
			log.Fatal(err)
		}
		return
	}
	build.ConstraintExpr("amd64,!purego")
	switch *file {
	case "tiles":
		tiles()
	case "panels":
		panels()
	default:
		log.Fatalf("file %q: want panels or tiles", *file)
	}
	build.Generate()
}

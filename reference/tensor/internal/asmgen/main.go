// Command asmgen writes the amd64 assembly of packages tensor and panel with avo.
//
//	go run . -file panels -out ../../../panel/panels_amd64.s -stubs ../../../panel/panels_amd64.go -pkg panel
//
// It lives in its own module: users of meibench build what it wrote, never the generator. One function here is one
// family of kernels; what differs between instruction sets and number formats is data (isa, format).
package main

import (
	"flag"
	"log"

	"github.com/mmcloughlin/avo/build"
)

func main() {
	file := flag.String("file", "", "what to write: panels or tiles")
	flag.Parse()
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

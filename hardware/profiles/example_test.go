package profiles_test

import (
	"fmt"

	"meibench/hardware/profiles"
)

func Example() {
	d, err := profiles.Device("rtx-a6000")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Bandwidth.Value, d.Bandwidth.Unit, d.Bandwidth.Kind, "from", d.Bandwidth.Source)
	_, err = profiles.Device("rtx-a600")
	fmt.Println(err)
	// Output:
	// 7.68e+11 B/s spec from github.com/hahnyuan/LLM-Viewer hardwares/hardware_params.py
	// unknown device "rtx-a600": did you mean "rtx-a6000"?
}

// Describe shows where every number of a profile comes from.
func ExampleDescribe() {
	rows, err := profiles.Describe("ethernet-10g")
	for _, r := range rows[:2] {
		fmt.Println(r.Field, r.Value, r.Unit, r.Kind)
	}
	fmt.Println(err)
	// Output:
	// up.rate.p5 1.175e+09 B/s assumed
	// up.rate.p50 1.175e+09 B/s assumed
	// <nil>
}

package workloads

import (
	"meibench/internal/sourced"
	"meibench/workloads/arrival"
)

// robotics is a vision-language-action model in a control loop: every period a
// camera image goes in and one action of seven numbers comes out.
var robotics = App{
	Name: "robotics", About: "a vision-language-action model in a control loop", Task: "robotics",
	Scenario: Periodic,
	Privacy: Privacy{Class: "operational", Zone: CloudZone, Kind: sourced.Assumed,
		Source: "chosen: camera images of a work place; a workload file may restrict it"},
	Arrivals: arrival.Spec{Kind: arrival.Periodic,
		Period: paper(0.2, "s", "openvla/openvla README: 5 to 10 Hz advised; the slower end"),
		Jitter: assumed(0.005, "s", "chosen: a frame of a 30 Hz camera is up to 33 ms old, its software timer a few ms off")},
	Prompt:             words(1.801, 0.501, "SLURP devel and test, words of 5,007 commands, moments of ln x; stands in for instructions"),
	Output:             constant(assumed(7, "token", "OpenVLA: one token for each of 7 action dimensions, remembered from the paper")),
	Images:             constant(assumed(1, "image", "OpenVLA: one camera, remembered from the paper")),
	ImageTokens:        constant(assumed(256, "token", "OpenVLA: 224 x 224 pixels in patches of 14 x 14, remembered from the paper")),
	BytesPerImageToken: assumed(36.75, "B/token", "14 x 14 pixels x 1.5 bit/pixel of JPEG at quality 75 to 85, / 8"),
	BytesPerToken:      textBytes,
	Limits: []Limit{
		{E2E, "", 0.99, assumed(0.2, "s", "an action must come before the next image: one period of 5 Hz (openvla/openvla README)")},
	},
	Facts: []sourced.Named{
		fact("split control DL latency", spec(0.012, "s", "3GPP TS 22.261 table 7.10.1-1: UL 4.7 Mbit/s, DL 320 Mbit/s, 40 kB")),
		fact("remote control latency, static", spec(0.100, "s", "3GPP TR 22.847: 20 to 100 ms, 99.99 %")),
		fact("remote control latency, dynamic", spec(0.020, "s", "3GPP TR 22.847: 1 to 20 ms, 99.99 %")),
		fact("pi0 forward pass, two cameras", paper(0.027, "s", "arXiv 2510.26742, tuned RTX 4090")),
		fact("pi0 remote chunk latency judged normal", paper(1, "s", "openpi examples/droid README: 0.5 to 1 s")),
		fact("quadruped battery", spec(650*3600, "J", "3GPP TR 22.874 5.4.1: 650 Wh")),
	},
}

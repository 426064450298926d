package workloads

import (
	"meibench/internal/sourced"
	"meibench/workloads/arrival"
	"meibench/workloads/length"
)

const serveGenImage = serveGen + ", mm-image"

// frameTokens is a 1280 x 720 frame in a model of one token per 28 x 28 pixels.
var frameTokens = measured(1196, "token", serveGenImage+": the mode of image tokens, round(1280/28) x round(720/28)")

// frameBytes is coded image data per vision token of such a model.
var frameBytes = assumed(147, "B/token", "28 x 28 pixels x 1.5 bit/pixel of JPEG at quality 75 to 85, / 8")

// ar is a question about what smart glasses see. The render loop with its 20 ms
// is background load, not a request to a language model.
var ar = App{
	Name: "ar", About: "questions about what smart glasses see", Task: "ar",
	Scenario: Open,
	Privacy: Privacy{Class: "personal, bystanders in view", Zone: CloudZone, Kind: sourced.Assumed,
		Source: "chosen: a workload file may keep images at the edge"},
	Arrivals: arrival.Spec{Kind: arrival.Gamma, Rate: assumed(1, "1/s", "a unit: only the shape is used"),
		Shape: measured(0.980, "1", serveGenImage+": 1/CV^2 at the median client CV of 1.01")},
	PerUser: assumed(0.05, "1/s", paceIsChosen),
	Prompt:  table("servegen_mm-image/text_tokens"), Output: table("servegen_mm-image/output_tokens"),
	Images: table("servegen_mm-image/image_count"), ImageTokens: constant(frameTokens), BytesPerImageToken: frameBytes,
	BytesPerToken: textBytes, Think: pause(5), Read: reading,
	Turns: length.Spec{Kind: length.Geometric, Mean: assumed(2, "turn", "chosen: a question and one more about the same view; no data")},
	Limits: []Limit{
		{TTFT, "", 0.99, assumed(1.5, "s", "design target for the first word; no standard")},
		{E2E, "", 0.99, assumed(3, "s", "design target for the answer; no standard")},
	},
	Facts: []sourced.Named{
		fact("motion to photon", spec(0.020, "s", mopsAR+": at most 20 ms, preferably 7 to 15")),
		fact("budget left after display", spec(0.008, "s", mopsAR+": 7 to 8 ms of 20 ms")),
		fact("cloud mobile XR response", spec(0.050, "s", mopsAR+": live view and translation")),
		fact("cloud mobile XR rate", spec(100e6, "bit/s", mopsAR+": 50 to 100 Mbit/s")),
		fact("split media recognition latency", spec(0.100, "s", "3GPP TS 22.261 table 7.10.1-1: UL 1.5 Mbit/s, DL 150 Mbit/s")),
	},
}

package workloads

import (
	"meibench/internal/sourced"
	"meibench/workloads/arrival"
)

// oneFrontCamera is what the vehicle sees: one frame per request.
var oneFrontCamera = constant(assumed(1, "image", "chosen: the front camera"))

// driving is the language layer of a vehicle: it describes the scene and hints
// at a decision once or twice a second. Perception and control have budgets of
// milliseconds and no business in a language model.
var driving = App{
	Name: "driving", About: "scene description and right-of-way hints for a vehicle", Task: "driving",
	Scenario: Periodic,
	Privacy: Privacy{Class: "personal, bystanders in view", Zone: CloudZone, Kind: sourced.Assumed,
		Source: "chosen: a workload file may keep images at the edge"},
	Arrivals: arrival.Spec{Kind: arrival.Periodic,
		Period: assumed(0.5, "s", "chosen: a language layer at 1 to 2 Hz, the faster end"),
		Jitter: assumed(0.02, "s", "chosen: a camera frame at 30 Hz is up to 33 ms off")},
	Prompt: constant(assumed(64, "token", "chosen: route, speed and rules as text")),
	Output: constant(assumed(24, "token", "chosen: one sentence and a decision")),
	Images: oneFrontCamera, ImageTokens: constant(frameTokens), BytesPerImageToken: frameBytes,
	BytesPerToken: textBytes,
	Limits: []Limit{
		{E2E, "", 0.99, assumed(0.5, "s", "chosen: a hint is stale when the next frame is asked about")},
	},
	Facts: []sourced.Named{
		fact("platooning, highest automation", spec(0.010, "s", "3GPP TS 22.186: 50 to 1200 B at 30 Hz, 99.99 %")),
		fact("platooning, low automation", spec(0.020, "s", "3GPP TS 22.186: 6500 B at 50 Hz")),
		fact("platooning, lowest automation", spec(0.025, "s", "3GPP TS 22.186: 300 to 400 B at 30 Hz, 90 %")),
		fact("tele-operated driving UL latency", spec(0.100, "s", "3GPP TR 22.156: 10 to 50 Mbit/s, 99 %")),
		fact("tele-operated driving DL command", spec(0.020, "s", "3GPP TR 22.156: 0.1 to 0.4 Mbit/s, 99.999 %")),
		fact("perception reaction budget", assumed(0.100, "s", "Lin et al., ASPLOS 2018, remembered")),
		fact("raw LiDAR", assumed(154e6, "bit/s", "1.2 M points/s x 16 B")),
		fact("raw 1080p30 camera", paper(497e6, "bit/s", "agentcalc.com: 1920 x 1080 x 30 Hz x 8 bit")),
	},
}

// drivingLidar sends a sweep of the laser scanner with the camera's frame: what
// a vehicle pays that leaves perception to somebody else.
var drivingLidar = App{
	Name: "driving-lidar", About: "right-of-way hints from a camera frame and a LiDAR sweep", Task: "driving",
	Scenario: Periodic, Privacy: driving.Privacy, Arrivals: driving.Arrivals, Prompt: driving.Prompt, Output: driving.Output,
	Images: oneFrontCamera, ImageTokens: constant(frameTokens), BytesPerImageToken: frameBytes,
	SensorKind: "lidar", Sensor: constant(assumed(1.92e6, "B", "one sweep, raw: 1.2 M points/s x 16 B / 10 sweeps a second; the 10 Hz are chosen")),
	BytesPerToken: textBytes, Limits: driving.Limits,
}

package workloads

import (
	"meibench/internal/sourced"
	"meibench/workloads/arrival"
	"meibench/workloads/length"
)

// Sources that several applications cite.
const (
	azureConv    = "computed from the Azure LLM inference trace 2023, conversation, 19,366 requests (Patel et al., ISCA 2024)"
	azureCode    = "computed from the Azure LLM inference trace 2023, code, 8,819 requests (Patel et al., ISCA 2024)"
	serveGen     = "computed from ServeGen's published clients (Xiang et al., arXiv 2505.09999, alibaba/ServeGen @ f891d1189eb3)"
	mlperf       = "MLCommons inference_policies @ ac93e89, inference_rules.adoc: "
	mopsAR       = "draft-ietf-mops-ar-use-case-16 (RFC 9699)"
	wordFactor   = "1.33 tokens per English word, rule of thumb"
	paceIsChosen = "chosen: no data on how often one user asks"
)

// The four kinds of source. A derived number is as weak as its weakest part: a
// measured length times an assumed factor is assumed.

func spec(v float64, unit, source string) sourced.Number {
	return sourced.Number{Value: v, Unit: unit, Source: source, Kind: sourced.Spec}
}

func measured(v float64, unit, source string) sourced.Number {
	return sourced.Number{Value: v, Unit: unit, Source: source, Kind: sourced.Measured}
}

func paper(v float64, unit, source string) sourced.Number {
	return sourced.Number{Value: v, Unit: unit, Source: source, Kind: sourced.Paper}
}

func assumed(v float64, unit, source string) sourced.Number {
	return sourced.Number{Value: v, Unit: unit, Source: source, Kind: sourced.Assumed}
}

func fact(name string, n sourced.Number) sourced.Named { return sourced.Named{Name: name, Number: n} }

func table(name string) length.Spec { return length.Spec{Kind: length.Table, Table: name} }

func constant(n sourced.Number) length.Spec { return length.Spec{Kind: length.Constant, Value: n} }

// words is a lognormal number of words in tokens.
func words(mu, sigma float64, source string) length.Spec {
	return length.Spec{Kind: length.LogNormal, Mu: measured(mu, "1", source), Sigma: measured(sigma, "1", source),
		Factor: assumed(1.33, "token/word", wordFactor)}
}

func pause(seconds float64) length.Spec {
	return length.Spec{Kind: length.Exponential, Mean: assumed(seconds, "s", "chosen: no data on how long users think")}
}

// textBytes is what a token of English text weighs on the wire.
var textBytes = assumed(4.5, "B/token", "6 bytes an English word and its space / "+wordFactor)

// reading is how fast an answer is read before the next request.
var reading = assumed(5.3, "token/s", "238 words/min silent reading (Brysbaert 2019, J. Memory and Language 109) x "+wordFactor)

var personal = Privacy{Class: "personal", Zone: CloudZone, Kind: sourced.Assumed,
	Source: "chosen: personal data, but today's assistants run in the cloud; a workload file may restrict it"}

// consumerDay is the only long consumer-like day curve at hand.
var consumerDay = arrival.Day{
	Hourly: []float64{0.84, 0.71, 0.73, 0.68, 0.71, 0.66, 0.68, 0.85, 1.02, 1.05, 1.13, 1.09,
		1.06, 1.07, 1.06, 1.05, 1.09, 1.08, 1.01, 1.23, 1.46, 1.40, 1.27, 1.06},
	Start: 9, Kind: sourced.Measured, Source: serveGen + ", m-small, 14 days, rate by local hour over daily mean",
}

func chatLimits(ttft, tpot, fastTTFT, fastTPOT float64, model string) []Limit {
	return []Limit{
		{TTFT, "conversational", 0.99, spec(ttft, "s", mlperf+model+" conversational")},
		{TPOT, "conversational", 0.99, spec(tpot, "s", mlperf+model+" conversational")},
		{TTFT, "interactive", 0.99, spec(fastTTFT, "s", mlperf+model+" interactive")},
		{TPOT, "interactive", 0.99, spec(fastTPOT, "s", mlperf+model+" interactive")},
	}
}

// assistant is open chat.
var assistant = App{
	Name: "assistant", About: "open chat in text, one question or a short conversation", Task: "assistant",
	Scenario: Open, Privacy: personal,
	Arrivals: arrival.Spec{
		Kind: arrival.Gamma, Rate: measured(5.53, "1/s", azureConv), Shape: measured(0.871, "1", azureConv+", maximum likelihood"),
		Burst: arrival.Burst{
			CV:   measured(0.21, "1", azureConv+": sqrt((IDC - 1)/mean) of counts in 60 s"),
			Corr: measured(380, "s", azureConv+": -60 s / ln of the lag-1 correlation of counts in 60 s"),
		},
		Day: consumerDay,
	},
	PerUser: assumed(0.02, "1/s", paceIsChosen+"; 211 tokens read at 5.3 token/s and 10 s of thought make one request in 50 s"),
	Prompt:  table("azure23_conv/input_tokens"), Output: table("azure23_conv/output_tokens"),
	Follow: length.Spec{Kind: length.LogNormal,
		Mu:    assumed(3.756, "1", "ln of the mean prompt of 69.5 tokens (LMSYS-Chat-1M, as quoted by others) less sigma^2/2"),
		Sigma: assumed(0.985, "1", "that of Azure conversation prompts")},
	BytesPerToken: textBytes,
	Turns:         length.Spec{Kind: length.Geometric, Mean: paper(2, "turn", "LMSYS-Chat-1M: 2.0 turns a conversation, as quoted by others")},
	Think:         pause(10), Read: reading,
	Limits: chatLimits(2, 0.1, 0.5, 0.03, "Llama-3.1-8B"),
	Facts: []sourced.Named{
		fact("human turn gap", paper(0.2, "s", "Levinson and Torreira 2015, PMC4464110: order of 200 ms across languages")),
		fact("human speech planning", paper(0.6, "s", "Levinson and Torreira 2015, PMC4464110: over 600 ms")),
		fact("silent reading", paper(238, "word/min", "Brysbaert 2019, J. Memory and Language 109")),
	},
}

// assistantCode completes code in an editor: dense bursts, long silences.
var assistantCode = App{
	Name: "assistant-code", About: "code completion in an editor", Task: "assistant",
	Scenario: Open, Privacy: personal,
	Arrivals: arrival.Spec{
		Kind: arrival.Weibull, Rate: measured(2.57, "1/s", azureCode), Shape: measured(0.419, "1", azureCode+", maximum likelihood"),
		Burst: arrival.Burst{
			CV:   measured(1.04, "1", azureCode+": sqrt((IDC - 1)/mean) of counts in 60 s"),
			Corr: measured(33, "s", azureCode+": -60 s / ln of the lag-1 correlation of counts in 60 s"),
		},
	},
	PerUser: assumed(0.05, "1/s", paceIsChosen),
	Prompt:  table("azure23_code/input_tokens"), Output: table("azure23_code/output_tokens"),
	BytesPerToken: textBytes, Think: pause(5),
	Limits: []Limit{
		{TTFT, "", 0.99, spec(0.5, "s", mlperf+"Llama-3.1-8B interactive")},
		{TPOT, "", 0.99, spec(0.03, "s", mlperf+"Llama-3.1-8B interactive")},
	},
}

// assistantCommand is a spoken command to a phone, or a task dialogue of them.
var assistantCommand = App{
	Name: "assistant-command", About: "spoken commands and task dialogues", Task: "assistant",
	Scenario: Server, Privacy: personal,
	Arrivals:      arrival.Spec{Kind: arrival.Poisson, Rate: assumed(1, "1/s", "a unit: Poisson has no shape")},
	PerUser:       assumed(1.0/60, "1/s", paceIsChosen),
	Prompt:        words(1.801, 0.501, "SLURP devel and test, words of 5,007 commands, moments of ln x"),
	Follow:        words(1.930, 0.617, "Schema-Guided Dialogue, words of user turns, moments of ln x"),
	Output:        words(2.226, 0.628, "Schema-Guided Dialogue, words of system turns, moments of ln x"),
	SensorKind:    "audio",
	Sensor:        constant(assumed(8100, "B", "24 kbit/s coded speech x 2.7 s, 6.8 words (SLURP mean) at 2.5 words/s")),
	BytesPerToken: textBytes, Turns: table(length.SGDTurns), Think: pause(2),
	Read: assumed(4.1, "token/s", "183 words/min read aloud (Brysbaert 2019) x "+wordFactor),
	Limits: []Limit{
		{TTFT, "", 0.99, assumed(1, "s", "end of speech to first audio: 0.5 s good, 1 s tolerable, industry practice")},
		{TPOT, "", 0.99, assumed(0.244, "s", "1 / 4.1 token/s: 183 words/min read aloud (Brysbaert 2019) x "+wordFactor)},
	},
}

// assistantReasoning thinks at length before it answers.
var assistantReasoning = App{
	Name: "assistant-reasoning", About: "questions to a model that reasons at length", Task: "assistant",
	Scenario: Open, Privacy: personal,
	Arrivals: arrival.Spec{Kind: arrival.Gamma, Rate: assumed(1, "1/s", "a unit: only the shape is used"),
		Shape: measured(0.961, "1", serveGen+", deepseek-r1: 1/CV^2 at the median client CV of 1.02")},
	PerUser: assumed(0.01, "1/s", paceIsChosen),
	Prompt:  table("servegen_deepseek-r1/input_tokens"), Output: table("servegen_deepseek-r1/output_tokens"),
	BytesPerToken: textBytes, Think: pause(20),
	Limits: chatLimits(2, 0.08, 1.5, 0.015, "DeepSeek-R1"),
}

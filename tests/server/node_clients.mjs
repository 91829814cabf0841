// Speaks through OpenAI's Node client and the AI SDK; prints one JSON line for the Python test.
import { createOpenAI } from "@ai-sdk/openai";
import { experimental_generateSpeech as generateSpeech } from "ai";
import OpenAI from "openai";

const baseURL = process.env.BASE_URL;
const input = process.env.TEXT;
const client = new OpenAI({ baseURL, apiKey: "key", maxRetries: 0 });
const result = {};

const whole = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input });
result.openai = Buffer.from(await whole.arrayBuffer()).toString("base64");

const streamed = await client.audio.speech.create({
  model: "gpt-4o-mini-tts",
  voice: "nova",
  input,
  response_format: "pcm",
});
const pieces = [];
for await (const piece of streamed.body) pieces.push(Buffer.from(piece));
result.pieces = pieces.length;
result.streamed = Buffer.concat(pieces).toString("base64");

try {
  await client.audio.speech.create({ model: "tts-1", voice: "nobody", input });
} catch (error) {
  result.error = { name: error.constructor.name, status: error.status, code: error.code };
}

try {
  const answer = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "breaks " + input });
  await answer.arrayBuffer();
  result.broken = "taken for whole";
} catch (error) {
  result.broken = "failed";
}

const sdk = createOpenAI({ baseURL, apiKey: "key" });
const { audio } = await generateSpeech({ model: sdk.speech("tts-1"), text: input, voice: "echo" });
result.sdk = { type: audio.mediaType, base64: audio.base64 };

console.log(JSON.stringify(result));

"""What the API takes and gives, as OpenAPI 3.1; the bounds are those that are checked."""

from dataclasses import MISSING, fields

from serving.request import BOUNDS, MAX_PROMPT_CHARACTERS, SCHEDULERS, Request

DESCRIPTIONS = {
    "prompt": "what to draw",
    "negative_prompt": "what to avoid",
    "seed": "of the first picture, the next has one more; without it a random one",
    "num_images": "how many pictures",
    "steps": "denoising steps",
    "guidance_scale": "how closely to follow the prompt; 1 for no guidance",
    "width": "pixels, a multiple of 8; without it the model's own",
    "height": "pixels, a multiple of 8; without it the model's own",
    "scheduler": "how noise is taken away, step by step",
}
REFUSALS = {
    "400": "A value, a key or the JSON is not right.",
    "403": "A browser sent this for a page of another site.",
    "408": "The body came too slowly.",
    "413": "The body is over 64 KiB.",
    "415": "The content type is not application/json.",
    "429": "Too many drawings wait; Retry-After says after how many seconds to come again.",
    "500": "Drawing failed.",
}
PLAIN = {"text/plain": {"schema": {"type": "string"}}}


def _property(name: str, default: object) -> dict:
    if name == "scheduler":
        schema = {"type": "string", "enum": list(SCHEDULERS)}
    elif name not in BOUNDS:
        schema = {"type": "string", "maxLength": MAX_PROMPT_CHARACTERS}
    else:
        kind = "number" if name == "guidance_scale" else "integer"
        optional = default is None or name == "seed"
        low, high = BOUNDS[name]
        schema = {"type": [kind, "null"] if optional else kind, "minimum": low, "maximum": high}
    if name in ("width", "height"):
        schema["multipleOf"] = 8
    if name == "prompt":
        schema["minLength"] = 1
    elif name != "seed" and default is not None:
        schema["default"] = default
    return schema | {"description": DESCRIPTIONS[name]}


def _request() -> dict:
    return {
        "type": "object",
        "required": [field.name for field in fields(Request) if field.default is MISSING],
        "additionalProperties": False,
        "properties": {
            field.name: _property(field.name, field.default) for field in fields(Request)
        },
    }


def _object(**properties: dict) -> dict:
    return {"type": "object", "required": list(properties), "properties": properties}


def _json(description: str, schema: str) -> dict:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _get(summary: str, **responses: str) -> dict:
    texts = {
        code.removeprefix("_"): {"description": text, "content": PLAIN}
        for code, text in responses.items()
    }
    return {"get": {"summary": summary, "responses": texts}}


SCHEMAS = {
    "Request": _request(),
    "Image": _object(
        image={
            "type": "string",
            "contentEncoding": "base64",
            "contentMediaType": "image/png",
            "description": "a PNG that carries its settings",
        },
        seed={"type": "integer"},
        problem={
            "enum": [None, "flagged", "non-finite"],
            "description": "withheld by the safety checker, or overflowed; null when all is well",
        },
    ),
    "Answer": _object(
        images={"type": "array", "items": {"$ref": "#/components/schemas/Image"}},
        settings={"type": "object", "description": "what drew the pictures, all values filled in"},
        unread={"type": "string", "description": "the end of the prompt that the model cannot see"},
    ),
    "Error": _object(error={"type": "string", "description": "what is wrong, and what to do"}),
}
GENERATE = {
    "summary": "Draw pictures from words",
    "requestBody": {"required": True, **_json("What to draw", "Request")},
    "responses": {
        "200": _json("The pictures", "Answer"),
        **{code: _json(text, "Error") for code, text in REFUSALS.items()},
    },
}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Pictures from words", "version": "1"},
    "paths": {
        "/api/generate": {"post": GENERATE},
        "/healthz": _get("Is the server there?", _200="It is."),
        "/readyz": _get("Is the model open?", _200="It is.", _503="Not yet."),
        "/metrics": _get("How much was drawn, for Prometheus", _200="Text exposition format 0.0.4"),
    },
    "components": {"schemas": SCHEMAS},
}

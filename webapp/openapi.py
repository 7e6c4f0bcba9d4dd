"""What the API takes and gives, as OpenAPI 3.1, made of the rules that are checked."""

from dataclasses import MISSING, fields

from sampling.request import RULES, Request
from webapp.client_address import HEADER, NAME
from webapp.limits import Limits

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
    "prompt_weights": "whether (word:1.2), (word) and [word] weigh words, as in AUTOMATIC1111, "
    "from -10 to 10; \\( is a bracket; false: brackets are words like any others",
    "variation_seed": "of the first picture's other noise, the next has one more; without it a "
    "random one",
    "variation_strength": "how far from the noise of the seed to that of the variation seed; above "
    "0 all pictures have the same seed",
    "init_image": "a picture's file, in base64, to start from; its middle is what is drawn over",
    "strength": "how much of the init image is drawn anew, of no account without one",
    "lora_scale": "how much of a LoRA is added to its base model; other models take 1 alone",
}
REFUSALS = {
    "400": "A value, a key, the JSON or the header X-Client-Id is not right.",
    "403": "A browser sent this for a page of another site.",
    "408": "The body came too slowly.",
    "413": "The body is over 64 KiB, or with an init image over 7 MiB.",
    "415": "The content type is not application/json.",
    "421": "The name in the header Host is none of the page's.",
    "429": "Too many drawings wait, or too many wrong passwords are being tried; Retry-After says "
    "after how many seconds to come again.",
    "500": "Drawing failed.",
    "503": "Too many pictures to start from come at once.",
}
NOT_LET_IN = {"401": "The password is wrong, or there is none."}
PLAIN = {"text/plain": {"schema": {"type": "string"}}}


def _request(limits: Limits) -> dict:
    most = {"num_images": limits.num_images, "steps": limits.steps}
    most |= {"width": limits.side, "height": limits.side}
    properties = {
        field.name: _property(field.name, field.default, most.get(field.name))
        for field in fields(Request)
    }
    required = [field.name for field in fields(Request) if field.default is MISSING]
    return {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }


def _property(name: str, default: object, most: int | None) -> dict:
    """`most`: what the page allows of it; None: what any request may ask for."""
    schema = dict(RULES[name])
    if most:
        schema["maximum"] = min(schema["maximum"], most)
    if default is None or name in ("seed", "variation_seed"):
        schema["type"] = [schema["type"], "null"]
    elif default is not MISSING:
        schema["default"] = default
    return schema | {"description": DESCRIPTIONS[name]}


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
    return {"summary": summary, "responses": texts}


SCHEMAS = {
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
CLIENT_ID = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "string", "pattern": NAME},
    "description": "a name that only this program knows: with it, it has a place of its own among "
    "those who share its address",
}
OPEN = {  # without the password
    "/healthz": _get("Is the server there?", _200="It is."),
    "/readyz": _get("Is the model open?", _200="It is.", _503="Not yet."),
}
METRICS = _get("How much was drawn, for Prometheus", _200="Text exposition format 0.0.4")
BEARER = {"type": "http", "scheme": "bearer", "description": "the password of the page"}


def document(limits: Limits, has_password: bool) -> dict:
    """The description of a page with these limits."""
    not_let_in = _errors(NOT_LET_IN) if has_password else {}
    draw = {
        "summary": "Draw pictures from words",
        "parameters": [CLIENT_ID],
        "requestBody": {"required": True, **_json("What to draw", "Request")},
        "responses": {"200": _json("The pictures", "Answer"), **_errors(REFUSALS), **not_let_in},
    }
    metrics = METRICS | {"responses": METRICS["responses"] | not_let_in}
    watched = {path: {"get": of | {"security": []}} for path, of in OPEN.items()}
    described = {
        "openapi": "3.1.0",
        "info": {"title": "Pictures from words", "version": "1"},
        "paths": {"/api/generate": {"post": draw}, **watched, "/metrics": {"get": metrics}},
        "components": {"schemas": {"Request": _request(limits), **SCHEMAS}},
    }
    if has_password:
        described["security"] = [{"password": []}]
        described["components"]["securitySchemes"] = {"password": BEARER}
    return described


def _errors(texts: dict[str, str]) -> dict:
    return {code: _json(text, "Error") for code, text in texts.items()}

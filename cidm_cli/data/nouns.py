"""The class noun: what kind of thing a concept is, from what the user says, the captions or a name.

A pet's name is a word to a tokenizer ("bello", "luna", "max" are one token each of CLIP's), so no vocabulary can tell
it from a noun. A list of the things that people photograph can: a word that is not in it is no noun by itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from cidm_cli.errors import CidmError, ExitCode

from ..options.prompts import noun_in

THINGS = frozenset(
    """
    dog cat puppy kitten poodle corgi retriever labrador terrier bulldog pug husky dachshund beagle chihuahua collie
    shepherd fox wolf lion tiger leopard cheetah horse pony foal donkey unicorn zebra cow bull calf pig piglet sheep
    lamb goat deer moose camel llama alpaca giraffe elephant rhino hippo mouse rat hamster gerbil rabbit bunny hare
    squirrel chipmunk hedgehog raccoon otter beaver badger skunk ferret bear koala panda kangaroo sloth monkey ape
    gorilla frog toad lizard gecko chameleon iguana crocodile alligator tortoise turtle snake dinosaur dragon chicken
    chick rooster hen turkey bird parrot parakeet budgie canary sparrow crow raven owl eagle hawk falcon pigeon dove
    penguin duck duckling goose swan flamingo peacock heron stork whale dolphin seal fish goldfish shark octopus squid
    jellyfish crab lobster shrimp snail slug butterfly moth bee wasp beetle ladybug ant spider dragonfly animal pet
    man woman boy girl baby child kid toddler person human teenager lady gentleman guy couple family bride groom
    portrait athlete dancer singer musician soldier knight wizard witch pirate ninja astronaut robot cyborg
    alien monster ghost vampire zombie elf dwarf fairy mermaid angel demon superhero character mascot creature
    tree bush cactus mushroom flower rose tulip sunflower orchid bonsai plant leaf fern grass pinecone
    apple banana orange lemon lime strawberry cherry grape grapes watermelon melon pineapple peach pear plum mango kiwi
    avocado tomato carrot corn potato onion pumpkin cucumber broccoli cabbage eggplant bread bagel baguette croissant
    sandwich burger hamburger pizza taco sushi noodles pasta soup salad steak egg cheese cake cupcake muffin pie donut
    cookie pancake waffle cream chocolate candy snack food drink coffee tea juice wine beer cocktail
    car taxi cab bus van truck lorry tractor train tram locomotive bicycle bike motorcycle motorbike scooter skateboard
    airplane aeroplane plane jet helicopter drone rocket spaceship boat ship yacht sailboat canoe kayak submarine tank
    wagon carriage cart stroller sled vehicle
    house home cottage cabin castle palace tower church cathedral temple mosque pagoda barn lighthouse bridge windmill
    skyscraper building hut tent igloo shop store cafe restaurant station stadium statue sculpture bust figurine
    monument fountain gate door window room kitchen bedroom bathroom garden
    chair armchair stool bench sofa couch table desk bed cradle shelf bookcase cabinet dresser wardrobe mirror lamp
    lantern chandelier candle clock watch vase pot planter bowl plate cup mug glass teapot kettle pitcher jug bottle
    can jar flask thermos tumbler spoon fork knife pan basket box crate chest barrel bucket bin bag backpack rucksack
    handbag purse wallet suitcase luggage briefcase umbrella pillow cushion blanket quilt rug carpet curtain towel
    hat cap beanie helmet crown tiara mask glasses sunglasses goggles scarf tie bowtie glove mitten shirt blouse
    sweater hoodie jacket coat vest suit dress gown skirt kimono pants trousers jeans shorts sock shoe sneaker boot
    sandal slipper heel belt ring necklace bracelet earring brooch pendant jewel gem crystal costume uniform armor
    toy doll teddy plushie plush stuffie puppet figure ball balloon kite puzzle dice lego yoyo marble gift trophy medal
    guitar violin cello piano keyboard drum flute trumpet saxophone harp accordion ukulele bell camera phone telephone
    smartphone laptop computer monitor television tv radio speaker headphones microphone console controller joystick
    typewriter printer robot book notebook magazine newspaper pen pencil brush key lock hammer wrench screwdriver
    axe shovel sword shield bow gun rifle anchor compass telescope binoculars coin stamp card flag logo sign poster icon
    emoji sticker badge label package carton
    painting drawing sketch watercolor watercolour illustration engraving etching woodcut linocut print lithograph
    fresco mosaic mural graffiti comic cartoon anime manga collage embroidery style artwork teddybear
    """.split()
)
"""Nouns that stand for a kind of thing by themselves; the plural counts, too."""

MEDIA = frozenset(
    """
    painting drawing sketch watercolor watercolour illustration engraving etching woodcut linocut print lithograph
    fresco mosaic mural graffiti comic cartoon anime manga collage embroidery style artwork portrait
    """.split()
)
"""Of those, what shows another thing: in "a painting of a dog" the dog is meant, unless a style is learned."""

QUALITIES = frozenset(
    """
    red orange yellow green blue purple violet pink brown black white grey gray golden silver gold colorful colourful
    small little tiny big large tall long short old new young vintage antique modern wooden metal plastic glass stone
    leather wool paper ceramic rubber stuffed toy ink oil pencil chalk charcoal crayon pixel water fluffy furry striped
    spotted shiny round square hot ice fire christmas wedding sports race
    """.split()
)
"""What may stand before such a noun in a name: "red_car", "ink_painting"."""

ARTICLES = frozenset({"a", "an", "the", "my", "our", "your", "this", "one"})
CAPTION = re.compile(
    r"\b(?:a|an|the)\b|[,;:!?](?:\s|$)|\b(?:photo|photograph|picture|image|portrait|painting|drawing|rendering|"
    r"close-?up|shot|view)s? of\b",
    re.IGNORECASE,
)
"""What a caption has and a noun does not."""
LONGEST = 60
"""Characters of a noun."""

_WORD = re.compile(r"[^\W_]+")
_JOINT = re.compile(r"[\s_-]+")
_REPEATS = re.compile(r"\d+_(.+)")


def stated(noun: str, name: str) -> str:
    """The class noun that a user says, without an article in front.

    Raises:
        CidmError: USAGE for what is no noun: a caption, a placeholder, nothing, too much.
    """
    words = noun.split()
    while len(words) > 1 and words[0].casefold() in ARTICLES:
        words = words[1:]
    found = " ".join(words)
    sound = found and len(found) <= LONGEST and found.isprintable() and "<" not in found
    if not sound or CAPTION.search(found):
        meant = in_captions([found], style=False) if sound else ""
        raise CidmError(
            f"concept {name}: --class {' '.join(noun.split())!r} is not a class noun",
            f"say only what kind of thing it is, for instance --class {_quoted(meant or 'dog')}",
            ExitCode.USAGE,
        )
    return found


def in_name(name: str) -> str:
    """The class noun in a concept's name: "dog2" is a dog, "10_dog" as well; empty for a name that holds none.

    Qualities before the noun belong to it ("red_car"), any other word does not ("sks_dog").
    """
    words = noun_in(name).split()
    if not words or _singular(words[-1].casefold()) is None:
        return ""
    start = len(words) - 1
    while start and (words[start - 1].casefold() in QUALITIES or _singular(words[start - 1].casefold())):
        start -= 1
    return " ".join(words[start:])


def in_folder(name: str) -> str:
    """The class noun in the name of a folder of kohya's kind, "10_sks dog": repeats, trigger, class; else empty."""
    inner = _REPEATS.fullmatch(name)
    return in_name(inner.group(1)) if inner else ""


def in_captions(captions: Sequence[str], *, style: bool) -> str:
    """The first thing that all captions name, in one form or another; empty where they do not agree.

    Of an object's captions, "a painting of" is passed over; of a style's, all but what it is a medium of.
    """
    named = [_things(caption, style=style) for caption in captions]
    return next((thing for thing in named[0] if all(thing in other for other in named)), "") if named else ""


def _things(caption: str, *, style: bool) -> list[str]:
    """The things that a caption names, in order and singular; those side by side are one: "a teddy bear"."""
    text = unicodedata.normalize("NFC", caption).casefold()
    runs: list[list[str]] = []
    end = None
    for match in _WORD.finditer(text):
        word = match.group()
        if _singular(word) is None and word not in QUALITIES:
            continue
        if end is not None and _JOINT.fullmatch(text, end, match.start()):
            runs[-1].append(word)
        else:
            runs.append([word])
        end = match.end()
    out = []
    for run in runs:
        last = _singular(run[-1])
        passed_over = last in MEDIA and re.search(rf"\b{re.escape(run[-1])} of\b", text)
        if last is None or (last not in MEDIA if style else passed_over):
            continue
        words = [*run[:-1], last]
        while not style and words[0] in QUALITIES and len(words) > 1:
            words = words[1:]
        out.append(" ".join(words))
    return out


def _singular(word: str) -> str | None:
    """A word of THINGS that this one is, or is the plural of."""
    forms = (word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y")
    return next((form for form in forms if form in THINGS), None)


def _quoted(noun: str) -> str:
    return f'"{noun}"' if " " in noun else noun


def class_noun(noun: str | None, name: str) -> str:
    """What kind of thing a concept is: as said, else the noun in its name, else the name's own words.

    Raises:
        CidmError: USAGE for what is no noun of a line.
    """
    return stated(noun or in_name(name) or noun_in(name), name)

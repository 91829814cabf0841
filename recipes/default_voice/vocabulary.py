"""Hand-written everyday words for the text generator, by part of speech; data only."""

__all__ = [
    "ADJECTIVES",
    "ADVERBS",
    "CONNECTIVES",
    "FIRST_NAMES",
    "GREETINGS",
    "MONTHS",
    "NOUNS",
    "PLACES",
    "PLURALS",
    "PREPOSITIONS",
    "QUESTION_STARTS",
    "SUBJECTS",
    "TIMES",
    "UNITS",
    "VERBS_BASE",
    "VERBS_PAST",
    "WEEKDAYS",
]


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return [" ".join(phrase.split()) for phrase in text.split("|")]


ADJECTIVES = _words(
    """
    able afraid ancient angry bad beautiful better big bitter black blue bold brave bright broken
    brown busy calm careful cheap clean clear clever close cloudy cold common cool correct crowded
    curious dangerous dark dead dear deep different difficult dirty dry early easy empty entire
    equal exact expensive famous fast fat final fine first foreign free fresh friendly front full
    funny gentle glad golden good gray great green happy hard healthy heavy high hot huge hungry
    important interesting kind large last late lazy light likely little local lonely long loose
    loud lovely low lucky main modern narrow natural nervous new nice noisy old open orange
    ordinary perfect plain pleasant poor popular possible private proud public pure purple quick
    quiet rare raw ready real recent red regular rich right rough round sad safe secret serious
    several sharp short shy sick silent silver simple single slow small smart smooth soft special
    square steady strange strong sudden sunny sure sweet tall terrible thick thin thirsty tired
    tiny true ugly unusual useful usual warm weak wet whole wide wild wise wonderful wooden wrong
    yellow young
    """
)

ADVERBS = _words(
    """
    actually finally suddenly usually sometimes luckily honestly perhaps however unfortunately
    clearly really later meanwhile certainly naturally quickly slowly
    """
)

CONNECTIVES = _phrases(
    """
    and | but | because | so | while | when | although | if | or | until | after | before | and
    then | which is why | since | unless | where | as
    """
)

FIRST_NAMES = _words(
    """
    james mary john patricia robert jennifer michael linda david elizabeth william barbara richard
    susan joseph jessica thomas sarah charles karen christopher lisa daniel nancy matthew betty
    anthony margaret mark sandra donald ashley steven kimberly paul emily andrew donna joshua
    michelle kenneth carol kevin amanda brian dorothy george melissa timothy deborah ronald
    stephanie edward rebecca jason sharon jeffrey laura ryan cynthia jacob kathleen gary amy
    nicholas angela eric shirley jonathan anna stephen brenda larry pamela justin emma scott
    nicole brandon helen benjamin samantha samuel katherine gregory christine alexander rachel
    patrick olivia frank maria jack heather dennis diane peter julie henry alice oliver lucy harry
    grace simon kate max ella leo ruth adam clara
    """
)

GREETINGS = _phrases(
    """
    hello | good morning | good evening | thank you | thanks a lot | good night | welcome | excuse
    me | i'm sorry | you're welcome | see you soon | goodbye | how are you | nice to meet you |
    yes | no | please | of course | congratulations | no problem | hi | hi there | that's right |
    well done | take care | don't worry | let's go | it's okay | i don't know | we'll see | that's
    great | i'd love to | what's wrong | here's the plan | they're late | i've no idea | you've
    won | we can't wait | he wasn't there | she didn't say | it won't work | you shouldn't worry |
    who's there
    """
)

MONTHS = _words(
    """
    january february march april may june july august september october november december
    """
)

NOUNS = _words(
    """
    apple animal answer arm army article artist aunt baby back bag ball bank bed bell bird boat
    body book bottle box boy bread bridge brother building bus business button cake camera camp
    captain car card case cat center chair chance child church city class clock coat coffee color
    company computer corner country course cousin cup customer dance daughter day decision desk
    dinner doctor dog dollar door dress driver ear earth edge egg engine evening eye face fact
    family farm father field film finger fire fish flag floor flower foot forest friend fruit game
    garden girl glass gold group hair hall hand hat head heart hill history home horse hospital
    hotel hour house husband idea island job journey key kitchen lady lake lamp land language law
    leader leg lesson letter library life light line machine man map market matter meal meat
    meeting member message milk mind minute mirror money moon morning mother mountain mouth movie
    music name neck newspaper night nose note number ocean office oil orange owner page paint pair
    paper park part party path pen people person phone piano picture piece place plan plane plant
    plate player pocket poem point police pool power present price problem question radio rain
    reason report rest result rice ring river road rock roof room rule salt sand school science
    sea season seat secret shape sheet ship shirt shoe shop side sign sister size skin sky sleep
    smile snow soldier son song soup space speech spring star station step stick stone store storm
    story street student sugar summer sun surface system table tail tax tea teacher team test
    thing thought ticket tiger time tool top touch town toy traffic train tree trip truck truth
    uncle unit valley value vegetable village visit voice wall war watch water way weather wedding
    week wheel wife wind window wine winter wolf woman wood word work world writer year yard zoo
    """
)

PLACES = _phrases(
    """
    london | paris | new york | berlin | chicago | boston | tokyo | rome | madrid | moscow |
    sydney | toronto | dublin | texas | california | florida | canada | england | france | germany
    | italy | spain | japan | china | india | brazil | mexico | africa | europe | asia | america |
    australia | russia | egypt | greece | sweden | norway | denmark | vienna | prague | miami |
    seattle | denver | houston | dallas | atlanta | detroit | philadelphia | washington | los
    angeles | san francisco | las vegas | scotland | ireland | wales | portugal | turkey | israel
    | korea | vietnam | cuba | peru | chile | argentina
    """
)

PLURALS = _words(
    """
    apples animals answers bags balls beds bells birds boats bottles boxes boys bridges brothers
    buildings buses cakes cameras cars cards cats chairs children cities classes clocks coats
    colors companies computers countries cups customers days doctors dogs dollars doors dresses
    drivers eggs engines eyes families farmers fields films fingers flowers forests friends games
    gardens girls glasses guests hands hats hills horses hospitals hotels hours houses ideas
    islands jobs keys kitchens lakes lamps languages leaves lessons letters libraries lights lines
    machines maps markets meals meetings members men messages minutes mirrors months mountains
    movies names nights notes numbers offices oranges owners pages papers parents parties paths
    pencils people phones pictures pieces places plans plants plates players pockets poems points
    potatoes prices problems questions reasons reports rings rivers roads rocks rooms rules
    schools seats shapes sheep ships shirts shoes shops signs sisters soldiers songs stars
    stations steps stones stories streets students tables teachers teams tests things tickets
    tomatoes tools towns toys trains travelers trees trips trucks vegetables villages visitors
    voices walls watches waves ways weeks wheels windows winners women words workers writers years
    """
)

PREPOSITIONS = _phrases(
    """
    in | on | at | near | behind | under | over | with | without | about | for | from | across |
    into | beside | between | through | around | after | before | against | along | inside |
    outside | next to | in front of | on top of | of | like | by | toward | because of | instead
    of | out of | except
    """
)

QUESTION_STARTS = _phrases(
    """
    do you | did you | can you | could you please | will they | would you like to | why did he |
    how do we | when will she | where did they | should i | what makes you | have you ever tried
    to | who wants to | how often do you | is it possible to | why don't we | may i | did anyone |
    when can i | how long did it take to | are you going to | what time will you | do you want to
    | shall we | which way do i | who will
    """
)

SUBJECTS = _words(
    """
    i you he she we they everyone nobody someone everybody she he it we they
    """
)

TIMES = _phrases(
    """
    today | yesterday | tomorrow | this morning | last night | every day | in the morning | on
    monday | next week | last year | at noon | at midnight | in the summer | during the winter |
    after lunch | before dinner | all day long | for a long time | once a week | right now | many
    years ago | on friday | tonight | as soon as possible | two days later | at the same time | in
    the end | again and again | this evening | next month | early in the morning | on the weekend
    | for the first time
    """
)

UNITS = _words(
    """
    miles kilometers meters feet inches pounds kilograms grams hours minutes seconds days weeks
    months years dollars euros cents percent degrees liters gallons people points pages
    """
)

VERBS_BASE = _phrases(
    """
    add | answer | ask | bake | become | begin | believe | break | bring | build | buy | call |
    carry | catch | change | choose | clean | climb | close | collect | consider | cook | count |
    cover | cross | describe | discover | draw | drive | enjoy | expect | explain | feed | feel |
    fill | find | finish | fix | follow | forget | get | give | go with | grow | guard | have |
    hear | help | hide | hit | imagine | improve | join | keep | kick | know | leave | learn |
    like | look at | lose | love | make | measure | meet | miss | move | need | notice | offer |
    open | order | own | paint | pass | pay | pick | plan | play | prepare | promise | pull | push
    | put | reach | remember | repair | report | ride | save | see | sell | send | serve | share |
    show | sing | speak about | start | stop | study | take | talk to | teach | tell | think about
    | throw | touch | try | turn | understand | use | visit | wait for | walk past | want | warn |
    wash | watch | wear | wish for | work with | write
    """
)

VERBS_PAST = _phrases(
    """
    added | answered | asked | baked | became | began | believed | bought | broke | brought |
    built | called | carried | caught | changed | chose | cleaned | climbed | closed | collected |
    considered | cooked | counted | covered | crossed | described | discovered | drew | drove |
    enjoyed | expected | explained | fed | felt | filled | finished | fixed | followed | forgot |
    found | gave | grew | guarded | had | hated | heard | helped | hid | hit | imagined | improved
    | joined | kept | kicked | knew | laughed at | learned | left | liked | listened to | looked
    at | lost | loved | made | measured | met | missed | moved | needed | noticed | offered |
    opened | ordered | owned | painted | passed | paid | picked | planned | played | praised |
    prepared | promised | pulled | pushed | put | raised | reached | remembered | repaired |
    reported | rode | sang | saved | saw | sent | served | shared | showed | sold | spoke about |
    started | stole | stopped | studied | taught | thought about | threw | told | took | touched |
    tried | turned | understood | used | visited | waited for | walked past | wanted | warned |
    washed | watched | wished for | wondered about | worked with | wore | wrote
    """
)

WEEKDAYS = _words(
    """
    monday tuesday wednesday thursday friday saturday sunday
    """
)
